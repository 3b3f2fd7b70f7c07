// Explorers without a kernel: what the pages of the static book load, once for all explorers of a page.
//
// A page has, for each explorer, <figure class="vx-static"> around a picture and a sentence (static.py writes it). When
// the figure comes near the window, its script (what anywidget calls ESM, and CSS) and its payload (the widget's traits)
// are loaded, and the explorer takes the place of the picture. All files are classic scripts and the module is imported
// from a blob, as pages opened from the disk (file://) may neither fetch() nor import another file.
(() => {
  if (window.vitcnnExplorers) return; // each figure brings the tag of this script along
  const home = document.currentScript.src; // the other files lie beside this one
  const NEAR = "600px"; // above and below the window
  const SETTLED = 250; // ms; browsers refuse to write the address too often, as a drag would

  // --- files: a hash, and what the file of that name calls --------------------------------------------------------

  const files = new Map(); // hash: {promise, resolve}

  function load(hash) {
    if (!files.has(hash)) {
      const file = {};
      file.promise = new Promise((resolve, reject) => {
        file.resolve = resolve;
        const tag = document.createElement("script");
        tag.src = new URL(`${hash}.js`, home);
        tag.onerror = () => reject(new Error("its data cannot be loaded"));
        document.head.append(tag);
      });
      files.set(hash, file);
    }
    return files.get(hash).promise;
  }

  window.vitcnnExplorers = {
    script: (hash, { esm, css }) => files.get(hash).resolve(module(esm, css)),
    payload: (hash, base64) => files.get(hash).resolve(unpack(base64)),
  };

  async function module(esm, css) {
    document.head.append(Object.assign(document.createElement("style"), { textContent: css }));
    return (await import(URL.createObjectURL(new Blob([esm], { type: "text/javascript" })))).default;
  }

  // The traits, from gzip: the length of a JSON text as 4 bytes, the text, and the trait `data`.
  async function unpack(base64) {
    const text = atob(base64);
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i += 1) bytes[i] = text.charCodeAt(i);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const buffer = await new Response(stream).arrayBuffer();
    const start = 4 + new DataView(buffer).getUint32(0, true);
    const traits = JSON.parse(new TextDecoder().decode(buffer.slice(4, start)));
    return { ...traits, data: new DataView(buffer, start) };
  }

  // --- the model: anywidget's, as far as a page without a kernel can have it --------------------------------------

  // ?explorer=NAME&key=value&…#explore-NAME: which explorer the reader last used, and how.
  const asked = new URLSearchParams(location.search);

  function restored(traits) {
    const state = {};
    for (const name of asked.get("explorer") === traits.name ? traits.state_names : []) {
      const text = asked.get(name);
      const value = typeof traits[name] === "number" ? Number(text) : text;
      if (text && (typeof value === "string" || Number.isInteger(value))) state[name] = value;
    }
    return { ...traits, ...state };
  }

  function createModel(traits) {
    const values = restored(traits);
    const listeners = {};
    let timer;
    const stateAt = (page) => {
      const address = new URL(page);
      const state = values.state_names.map((name) => [name, values[name]]);
      address.search = new URLSearchParams([["explorer", values.name], ...state]);
      address.hash = `explore-${values.name}`;
      return address.href;
    };
    // Others cannot open a page of this disk: give the address that it has on the web, if it names one.
    const published = location.protocol === "file:" && document.querySelector("link[rel=canonical]")?.href;
    const link = () => stateAt(published || location.href);
    const write = () => {
      try {
        history.replaceState(history.state, "", stateAt(location.href));
      } catch {
        // Some browsers keep the address of a page from the disk as it is; "Copy link" gives it all the same.
      }
    };
    return {
      link,
      get: (name) => values[name],
      set(name, value) {
        if (values[name] === value) return;
        values[name] = value;
        for (const listener of [...(listeners[`change:${name}`] ?? [])]) listener();
      },
      save_changes() {
        clearTimeout(timer);
        timer = setTimeout(write, SETTLED);
      },
      on: (event, listener) => (listeners[event] ??= new Set()).add(listener),
      off: (event, listener) => listeners[event]?.delete(listener),
    };
  }

  // --- figures ----------------------------------------------------------------------------------------------------

  async function mount(figure) {
    const fallback = figure.firstElementChild;
    const element = document.createElement("div");
    try {
      const [script, traits] = await Promise.all([figure.dataset.script, figure.dataset.payload].map(load));
      figure.append(element);
      await script.render({ model: createModel(traits), el: element });
      fallback.remove();
    } catch (error) {
      // The picture stays.
      console.error(error);
      element.remove();
      const line = document.createElement("p");
      line.className = "vx-failed";
      line.textContent = `The interactive view could not be started: ${error.message}.`;
      figure.append(line);
    }
  }

  function start() {
    const observer = new IntersectionObserver((entries) => {
      for (const { isIntersecting, target } of entries) {
        if (!isIntersecting) continue;
        observer.unobserve(target);
        mount(target);
      }
    }, { rootMargin: `${NEAR} 0px` });
    for (const figure of document.querySelectorAll("figure.vx-static")) {
      if (figure.id === `explore-${asked.get("explorer")}`) mount(figure).then(() => figure.scrollIntoView());
      else observer.observe(figure);
    }
  }

  // A script that a page loads with `defer` runs when all figures are there.
  start();
})();
