// What a page shows, as plain data for the tests.
() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const article = document.querySelector("article") ?? document.body;
  const prose = article.cloneNode(true);
  all("pre, code, math, svg, script, style", prose).forEach((element) => element.remove());
  const width = document.documentElement.clientWidth;
  return {
    text: article.innerText,
    prose: prose.textContent,
    images: all("img").map((image) => ({
      source: image.getAttribute("src"),
      loaded: image.complete && image.naturalWidth > 0,
      alt: image.getAttribute("alt"),
    })),
    figures: all("figure.vitcnn-figure").map((figure) => ({
      ids: [figure, ...all("[id^=fig-]", figure)].map((e) => e.id).filter((id) => /^fig-\d+$/.test(id)),
      alt: (figure.querySelector("svg[role=img]")?.getAttribute("aria-label")
            ?? figure.querySelector("img")?.getAttribute("alt") ?? "").trim(),
      caption: (figure.querySelector("figcaption")?.innerText ?? "").trim(),
      provenance: (figure.querySelector(".vitcnn-provenance")?.innerText ?? "").trim(),
      grounds: [...new Set(grounds(figure))],
    })),
    explorers: all("figure.vx-static").map((figure) => ({
      kind: figure.dataset.kind,
      sentence: figure.querySelector(".vx .vx-sentence")?.innerText ?? "",
      grounds: [...new Set(grounds(figure))],
    })),
    outputs: all(".cell_output .text_html").map((output) => ({
      text: output.innerText.slice(0, 60),
      grounds: [...new Set(grounds(output))],
    })),
    faults: all(".stderr, .traceback, .system-message, .admonition.error").map((e) => e.innerText.slice(0, 300)),
    ids: all("[id]").map((element) => element.id),
    links: all("a[href]").map((link) => link.getAttribute("href")),
    firstPages: all(".bd-sidebar-primary p.caption + ul > li:first-child > a").map((a) => a.getAttribute("href")),
    formulas: all("math").length,
    mathFont: [...document.fonts].some((font) => font.family.includes("Vitcnn Math") && font.status === "loaded"),
    // Subscripts that end on the line of what they belong to, and bars of a norm that are higher than a line.
    levelSubscripts: all("msub").filter(({ children: [base, below] }) => inFontSize(below,
      below.getBoundingClientRect().bottom - base.getBoundingClientRect().bottom) < 0.1).map((e) => e.textContent),
    tallBars: all("math:not(:has(mfrac)) mo").filter((e) => e.textContent === "‖"
      && inFontSize(e, e.getBoundingClientRect().height) > 1.5).map((e) => e.closest("math").textContent),
    brokenWords: brokenWords(),
    scrollersWithoutCue: all("*").filter((e) => e.scrollWidth > e.clientWidth + 1 && !e.matches("pre, pre *, html, body")
      && /auto|scroll/.test(getComputedStyle(e).overflowX) && !hasCue(e))
      .map((e) => `${e.tagName.toLowerCase()}.${e.className}: ${e.textContent.trim().slice(0, 60)}`),
    theme: document.documentElement.dataset.theme,
    overflow: document.documentElement.scrollWidth - width,
    wide: all("body *").filter(sticksOut).filter((e) => ![...e.children].some(sticksOut)).slice(0, 5)
      .map((e) => `${e.tagName.toLowerCase()}.${e.className}: ${e.textContent.trim().slice(0, 60)}`),
  };

  // The colours that lie behind an element, up to the page's own.
  function grounds(element) {
    const colours = [];
    const page = getComputedStyle(document.body).backgroundColor;
    for (let e = element; e && !e.matches("article"); e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (colour !== "rgba(0, 0, 0, 0)" && colour !== page) colours.push(colour);
    }
    return colours;
  }

  // A shadow at the edges of what scrolls, which no cell covers.
  function hasCue(element) {
    const cells = all("tr, th, td", element).map((cell) => getComputedStyle(cell).backgroundColor);
    return getComputedStyle(element).backgroundImage.includes("gradient")
      && cells.every((colour) => colour === "rgba(0, 0, 0, 0)");
  }

  function inFontSize(element, pixels) {
    return pixels / parseFloat(getComputedStyle(element.parentElement).fontSize);
  }

  // Words of which a part stands on the next line, without a hyphen of their own.
  function brokenWords() {
    const broken = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let text = walker.nextNode(); text; text = walker.nextNode()) {
      if (text.parentElement.closest("script, style, svg, math, pre, code, .sig, [hidden]")) continue;
      for (const word of text.data.matchAll(/(?<!\S)\p{L}{4,}(?![\p{L}_.(])/gu)) {
        const range = document.createRange();
        range.setStart(text, word.index);
        range.setEnd(text, word.index + word[0].length);
        const lines = new Set([...range.getClientRects()].filter((r) => r.width > 0).map((r) => Math.round(r.top)));
        if (lines.size > 1) broken.push(word[0]);
      }
    }
    return broken;
  }

  function sticksOut(element) {
    const right = element.getBoundingClientRect().left + element.scrollWidth;
    return element.clientWidth > 0 && right > width + 1 && getComputedStyle(element).overflowX === "visible";
  }
}
