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
      sentence: figure.querySelector("section.vx .vx-sentence")?.innerText ?? "",
      grounds: [...new Set(grounds(figure))],
    })),
    faults: all(".stderr, .traceback, .system-message, .admonition.error").map((e) => e.innerText.slice(0, 300)),
    ids: all("[id]").map((element) => element.id),
    links: all("a[href]").map((link) => link.getAttribute("href")),
    firstPages: all(".bd-sidebar-primary p.caption + ul > li:first-child > a").map((a) => a.getAttribute("href")),
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

  function sticksOut(element) {
    const right = element.getBoundingClientRect().left + element.scrollWidth;
    return element.clientWidth > 0 && right > width + 1 && getComputedStyle(element).overflowX === "visible";
  }
}
