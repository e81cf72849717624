"use strict";
(() => {
  const at = (id) => document.getElementById(id);
  const images = at("images"), controls = at("controls"), detail = at("detail");
  const all = [...images.children];
  const text = new Map(all.map((one) => [one, one.textContent.toLowerCase()]));
  const names = new Intl.Collator(undefined, { numeric: true });
  let shown = all;

  const number = (one, key) => (one.dataset[key] === "" ? NaN : Number(one.dataset[key]));
  // "score-0" is read as dataset["score-0"], whose attribute is data-score-0.
  const value = (one, key) => (key.startsWith("score-") ? Number(one.getAttribute(`data-${key}`) || NaN) : number(one, key));

  function order(key, down) {
    if (key === "name") return (a, b) => names.compare(a.dataset.name, b.dataset.name);
    return (a, b) => {
      const x = value(a, key), y = value(b, key);
      if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y) || number(a, "number") - number(b, "number");
      return (down ? y - x : x - y) || number(a, "number") - number(b, "number");
    };
  }

  function sort() {
    const option = at("sort").selectedOptions[0];
    all.sort(order(option.value, "down" in option.dataset));
    images.append(...all);
    filter();
  }

  function filter() {
    const label = controls.elements.label.value, words = at("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    shown = all.filter((one) => {
      const kept = label === "" || (label === "*" ? "disagree" in one.dataset : one.dataset.label === label);
      one.hidden = !(kept && words.every((word) => text.get(one).includes(word)));
      return !one.hidden;
    });
    at("shown").textContent = `${shown.length} of ${all.length} shown`;
  }

  function heat(value) {
    const choice = at("heat");
    if (!choice) return;
    if (value !== undefined) choice.value = value;
    document.body.dataset.heat = choice.value;
    at("about-heat").hidden = choice.value === "";
  }

  // What is open is what the address names, so a link to an image opens it.
  function opened() {
    const one = location.hash.startsWith("#image-") ? at(location.hash.slice(1)) : null;
    if (!one || !all.includes(one)) {
      if (detail.open) detail.close();
      return;
    }
    at("detail-name").textContent = one.dataset.name;
    const more = one.querySelector(".more").cloneNode(true);
    more.hidden = false;
    const parts = [".picture, .missing", ".said", "p.error", ".size"].map((part) => one.querySelector(part)?.cloneNode(true));
    at("detail-body").replaceChildren(...parts.filter(Boolean), more);
    at("detail-body").className = one.className;
    at("link").href = location.hash;
    const place = shown.indexOf(one);
    at("place").textContent = place < 0 ? "" : `${place + 1} of ${shown.length}`;
    at("before").disabled = place <= 0;
    at("after").disabled = place < 0 || place === shown.length - 1;
    if (!detail.open) detail.showModal();
  }

  function step(by) {
    const open = detail.open ? at(location.hash.slice(1)) : document.activeElement?.closest("article");
    const next = shown[shown.indexOf(open) + by];
    if (!next || (!open && by < 0)) return;
    if (detail.open) location.replace(`#${next.id}`);
    else next.querySelector(".shot").focus();
  }

  detail.addEventListener("close", () => {
    const one = location.hash.startsWith("#image-") ? at(location.hash.slice(1)) : null;
    if (one) history.replaceState(null, "", location.pathname + location.search);
    one?.querySelector(".shot")?.focus();
  });
  detail.addEventListener("click", (event) => event.target === detail && detail.close());
  at("close").addEventListener("click", () => detail.close());
  at("before").addEventListener("click", () => step(-1));
  at("after").addEventListener("click", () => step(1));
  at("sort").addEventListener("change", sort);
  at("search").addEventListener("input", filter);
  at("look").addEventListener("change", () => (images.className = at("look").value));
  at("heat")?.addEventListener("change", () => heat());
  controls.addEventListener("change", filter);
  controls.addEventListener("submit", (event) => event.preventDefault());
  addEventListener("hashchange", opened);
  addEventListener("keydown", (event) => {
    const typing = event.target.matches("input[type=search], select");
    if (event.ctrlKey || event.metaKey || event.altKey || typing) return;
    if (event.key === "/") at("search").focus();
    else if (event.key === "ArrowLeft") step(-1);
    else if (event.key === "ArrowRight") step(1);
    else if (event.key === "h" && at("heat")) heat(at("heat").value ? "" : at("heat").options[1].value);
    else return;
    event.preventDefault();
  });

  controls.hidden = at("keys").hidden = false;
  filter();
  heat();
  opened();
})();
