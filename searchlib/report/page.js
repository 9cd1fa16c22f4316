"use strict";
// Text of a study only ever becomes text (textContent): nothing here builds HTML from strings.
(() => {
  const PAGE = 50;
  const root = document.documentElement;
  const find = (selector, within = document) => within.querySelector(selector);
  // As on the Python side: no control characters, no marks that turn the reading direction.
  const clean = text => String(text).replace(/[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]/g, "\ufffd");
  const make = (name, attributes = {}, ...children) => {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (value !== null && value !== false) node.setAttribute(key, value === true ? "" : value);
    }
    node.append(...children.map(child => child instanceof Node ? child : clean(child)));
    return node;
  };
  const digits = value => value === null ? "–" : String(Number(value.toPrecision(6))).replace("-", "−");

  // ---- dark and light -------------------------------------------------------------------------------------------
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => root.dataset.theme ? root.dataset.theme === "dark" : dark.matches;
  const drawn = new WeakMap();  // a picture as it came, drawn on light paper
  const recolor = () => {
    for (const image of document.querySelectorAll("img[data-dark]")) {
      if (!drawn.has(image)) drawn.set(image, image.src);
      if (!isDark()) { image.src = drawn.get(image); continue; }
      const colors = JSON.parse(image.dataset.dark);
      let svg = atob(drawn.get(image).split(",")[1]);
      for (const [light, other] of Object.entries(colors)) svg = svg.replaceAll(light, other);
      image.src = "data:image/svg+xml;base64," + btoa(svg);
    }
  };
  dark.addEventListener("change", recolor);
  find("#theme").addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    recolor();
  });

  // ---- pictures: a click shows one large, another one larger -----------------------------------------------------
  const zoomed = make("dialog", {"aria-label": "picture"});
  const large = make("img", {alt: ""});
  const close = make("form", {method: "dialog"}, make("button", {value: "close"}, "close"));
  zoomed.append(close, large);
  document.body.append(zoomed);
  zoomed.addEventListener("click", event => {
    if (event.target === zoomed) zoomed.close();
    if (event.target === large) zoomed.classList.toggle("close-up");
  });
  document.addEventListener("click", event => {
    const figure = event.target.closest("figure button");
    if (figure) {
      const image = find("img", figure);
      large.src = image.src;
      large.alt = image.alt;
      zoomed.classList.remove("close-up");
      zoomed.showModal();
    }
    const copy = event.target.closest("button.copy");
    if (copy) {
      const text = find("code", copy.parentElement);
      getSelection().selectAllChildren(text);
      navigator.clipboard?.writeText(text.textContent).then(() => { copy.textContent = "copied"; }, () => {});
    }
  });

  // ---- the table of candidates ----------------------------------------------------------------------------------
  const view = {sort: null, down: false, page: 0, text: "", status: "", low: null, high: null, open: new Set()};
  let data = null;
  let order = [];

  const first = () => data.columns.find(column => column.best);
  const error = row => data.rows.trace && data.rows.trace[row] >= 0 ? data.errors[data.rows.trace[row]] : "";
  const matches = row => {
    if (view.status && data.rows.status[row] !== view.status) return false;
    const value = data.rows[first().key][row];
    if (view.low !== null && !(value !== null && value >= view.low)) return false;
    if (view.high !== null && !(value !== null && value <= view.high)) return false;
    if (!view.text) return true;
    const wanted = view.text.toLowerCase();
    return String(data.rows.id[row]) === wanted || data.rows.candidate[row].toLowerCase().includes(wanted)
      || error(row).toLowerCase().includes(wanted) || (data.rows.note?.[row] ?? "").includes(wanted);
  };
  const arrange = () => {
    const n = data.rows.id.length;
    order = [];
    for (let row = 0; row < n; row++) if (matches(row)) order.push(row);
    const column = data.rows[view.sort];
    if (!column) return;
    const sign = view.down ? -1 : 1;
    const compare = typeof column.find(item => item !== null) === "number"
      ? (a, b) => a - b : (a, b) => a < b ? -1 : a > b ? 1 : 0;
    order.sort((a, b) => {  // what has no value comes last either way; equals stay in order
      const left = column[a], right = column[b];
      if (left === null || right === null) return (left === null) - (right === null) || a - b;
      return sign * compare(left, right) || a - b;
    });
  };

  const parts = {};
  const build = () => {
    const value = first().label;
    parts.text = make("input", {type: "search", placeholder: "filter: id, candidate, error", "aria-label": "filter"});
    parts.status = make("select", {"aria-label": "status"});
    parts.low = make("input", {type: "number", step: "any", placeholder: `${clean(value).slice(0, 12)} ≥`,
      "aria-label": "least value"});
    parts.high = make("input", {type: "number", step: "any", placeholder: `${clean(value).slice(0, 12)} ≤`,
      "aria-label": "largest value"});
    parts.count = make("span", {class: "count", role: "status"});
    parts.head = make("thead");
    parts.body = make("tbody");
    parts.back = make("button", {type: "button"}, "← back");
    parts.next = make("button", {type: "button"}, "next →");
    parts.page = make("input", {type: "number", min: "1", value: "1", "aria-label": "page"});
    parts.pages = make("span", {class: "quiet"});
    const tools = make("div", {class: "tools"}, parts.text, parts.status, parts.low, parts.high, parts.count);
    const pager = make("div", {class: "tools"}, parts.back, parts.page, parts.pages, parts.next);
    const scroll = make("div", {class: "scroll", tabindex: "0"}, make("table", {}, parts.head, parts.body));
    find("#table").replaceChildren(tools, scroll, pager);
    const number = field => field.value === "" ? null : Number(field.value);
    const changed = () => {
      Object.assign(view, {text: parts.text.value.trim(), status: parts.status.value, low: number(parts.low),
        high: number(parts.high), page: 0});
      arrange();
      show();
    };
    let waiting = 0;
    parts.text.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(changed, 120); });
    for (const field of [parts.status, parts.low, parts.high]) field.addEventListener("input", changed);
    const turn = page => { view.page = page; show(); };
    parts.back.addEventListener("click", () => turn(view.page - 1));
    parts.next.addEventListener("click", () => turn(view.page + 1));
    parts.page.addEventListener("change", () => turn(Number(parts.page.value) - 1));
    parts.head.addEventListener("click", event => {
      const key = event.target.closest("button")?.dataset.key;
      if (!key) return;
      const column = data.columns.find(one => one.key === key);
      view.down = view.sort === key ? !view.down : column.best === "high";
      Object.assign(view, {sort: key, page: 0});
      arrange();
      show();
    });
    const unfold = event => {
      const id = event.target.closest("tr[data-row]")?.dataset.row;
      if (id === undefined || event.type === "keydown" && event.key !== "Enter") return;
      if (event.type === "click" && String(getSelection())) return;  // somebody copies a cell
      const row = Number(id);
      if (!view.open.delete(row)) view.open.add(row);
      show();
      find(`tr[data-row="${row}"]`, parts.body).focus();
    };
    parts.body.addEventListener("click", unfold);
    parts.body.addEventListener("keydown", unfold);
  };

  const show = () => {
    const pages = Math.max(1, Math.ceil(order.length / PAGE));
    view.page = Math.min(pages - 1, Math.max(0, Math.trunc(view.page) || 0));
    const from = view.page * PAGE, rows = order.slice(from, from + PAGE);
    for (const head of parts.head.querySelectorAll("th")) {
      const sorted = head.firstChild.dataset.key === view.sort;
      head.setAttribute("aria-sort", sorted ? (view.down ? "descending" : "ascending") : "none");
    }
    parts.body.replaceChildren(...rows.flatMap(line));
    const n = data.rows.id.length, upTo = from + rows.length;
    parts.count.textContent = rows.length
      ? `${(from + 1).toLocaleString("en")}–${upTo.toLocaleString("en")} of ${order.length.toLocaleString("en")}`
        + (order.length < n ? ` (${n.toLocaleString("en")} in all)` : "")
      : `none of ${n.toLocaleString("en")}`;
    parts.back.disabled = view.page === 0;
    parts.next.disabled = view.page === pages - 1;
    parts.page.value = view.page + 1;
    parts.page.max = pages;
    parts.pages.textContent = `of ${pages.toLocaleString("en")}`;
  };
  const line = row => {
    const cells = data.columns.map(({key, kind, minor}) => {
      const value = data.rows[key][row];
      return make("td", {class: kind + (minor ? " minor" : "")}, kind === "number" ? digits(value) : value);
    });
    const opened = view.open.has(row);
    const failed = data.rows.status[row] === "failed";
    const lines = [make("tr", {
      "data-row": row, tabindex: "0", class: failed ? "failed" : null, "aria-expanded": String(opened),
    }, ...cells)];
    if (opened) {
      const inside = [make("pre", {}, data.rows.candidate[row])];
      if (error(row)) inside.push(make("pre", {}, error(row)));
      lines.push(make("tr", {class: "detail"}, make("td", {colspan: data.columns.length}, ...inside)));
    }
    return lines;
  };

  const load = text => {
    data = JSON.parse(text);
    if (!parts.body) build();
    const heads = JSON.stringify(data.columns);
    if (parts.heads !== heads) {  // only then, for a button that is replaced loses its focus
      parts.heads = heads;
      parts.head.replaceChildren(make("tr", {}, ...data.columns.map(column => make("th", {
        scope: "col", class: column.kind + (column.minor ? " minor" : ""),
      }, make("button", {type: "button", "data-key": column.key}, column.label)))));
    }
    const known = [...new Set(data.rows.status)].sort();
    parts.status.replaceChildren(make("option", {value: ""}, "every status"),
      ...known.map(word => make("option", {value: word}, word)));
    parts.status.value = known.includes(view.status) ? view.status : "";
    if (view.sort === null) Object.assign(view, {sort: first().key, down: first().best === "high"});
    arrange();
    show();
  };

  // ---- a running search: ask the server, replace what has changed, keep what the reader has set ----------------------
  let version = null;
  const refresh = async () => {
    const status = await (await fetch("status.json", {cache: "no-store"})).json();
    if (version === null) version = root.dataset.version ?? status.version;
    if (status.version === version) return;
    const page = new DOMParser().parseFromString(await (await fetch("./", {cache: "no-store"})).text(), "text/html");
    version = page.documentElement.dataset.version ?? status.version;
    for (const fresh of page.querySelectorAll("[data-part]")) {
      const old = document.getElementById(fresh.id);
      if (!old || old.outerHTML === fresh.outerHTML) continue;
      for (const kept of old.querySelectorAll("[data-keep]")) {
        fresh.querySelector("#" + CSS.escape(kept.id))?.replaceWith(kept);
      }
      for (const details of old.querySelectorAll("details[open]")) {
        const same = fresh.querySelector(`details[data-key="${CSS.escape(details.dataset.key)}"]`);
        if (same) same.open = true;
      }
      old.replaceWith(document.adoptNode(fresh));
    }
    find("#made").textContent = find("#made", page).textContent;
    load(find("#data", page).textContent);
    recolor();
  };
  const poll = async () => {
    try {
      await refresh();
      root.removeAttribute("data-lost");
    } catch {
      root.dataset.lost = "";  // the server has gone: what is here stays
    }
    setTimeout(poll, 1000 * Number(root.dataset.live));
  };

  load(find("#data").textContent);
  recolor();
  if (root.dataset.live) poll();
})();
