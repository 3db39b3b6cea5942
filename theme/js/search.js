// Search in this language's pages. The index, and the library that reads it, are fetched when the box first opens.
//
// English is found by its words and their beginnings, inflected or not; Chinese, which has no spaces, by any part of it:
// a run of characters is indexed as the pairs that it consists of.

const dialog = document.querySelector(".search");
const input = dialog.querySelector("input");
const status = dialog.querySelector("[role=status]");
const list = dialog.querySelector("ol");
const home = new URL(`${dialog.dataset.home}/`, location);
const HAN = /^\p{sc=Han}/u;
const WORD = /\p{sc=Han}+|\d+\.\d+|(?:[^\P{L}\p{sc=Han}]|\p{N}|\p{M})+(?:[._](?:[^\P{L}\p{sc=Han}]|\p{N}|\p{M})+)*/gu;
const MOST = 10; // pages shown
const SECTIONS = 3; // of a page

// Full-width letters, as Chinese keyboards have them, and mathematical ones are letters.
const plain = text => text.normalize("NFKC").toLowerCase();

// 正态分布 is 正态, 态分, 分布; the last character stands alone as well, so that each one begins something.
const pairs = run => [...run].slice(1).map((character, i) => [...run][i] + character);

// torch.nn.silu is found as a whole and by its parts, 1.702 only as a whole.
const parts = word => (/[._]/.test(word) && !/^[\d.]+$/.test(word) ? [word, ...word.split(/[._]+/)] : [word]);

function indexed(text) {
  return (plain(text).match(WORD) ?? []).flatMap(word =>
    HAN.test(word) ? [...pairs(word), word.at(-1)] : parts(word));
}

// What must be in a section for a word of the query; `last` is still being typed.
function clause(word, last, stem, combineWith) {
  if (HAN.test(word)) {
    return word.length > 1 ? { combineWith, queries: pairs(word) } : { queries: [word], prefix: true };
  }
  const named = /\.[^.]*\p{L}[^.]*$/u.test(word) ? [word.split(".").at(-1)] : []; // torch.nn.SiLU is about SiLU
  const fuzzy = word.length > 4 && !named.length ? 0.2 : false; // not to find torch.nn.GELU
  const whole = { queries: [word], fuzzy, prefix: last, weights: { fuzzy: 0.2, prefix: 0.6 } };
  return { combineWith: "OR", queries: [whole, stem(word), ...named] };
}

const GREEK = new Map(Object.entries({
  alpha: "α", beta: "β", gamma: "γ", delta: "δ", epsilon: "ε", eta: "η", theta: "θ", kappa: "κ", lambda: "λ", mu: "μ",
  xi: "ξ", pi: "π", rho: "ρ", sigma: "σ", tau: "τ", phi: "φ", chi: "χ", psi: "ψ", omega: "ω",
}).map(([name, letter]) => [letter, name]));
const LITTLE = new Set("a an and are as at be by do does for from how in is it of on or that the to what why with".split(" "));

// What is looked for: without the words that are everywhere, unless there are no others.
function words(query) {
  const all = plain(query).replace(/(?<=\p{sc=Han})[的地得了](?=\p{sc=Han})/gu, " ").match(WORD) ?? [];
  const telling = all.filter(word => !LITTLE.has(word));
  return telling.length ? telling : all;
}

const FROM = {
  anchor: section => section.id.split("#")[1] ?? "",
  defined: section => [...section.code.matchAll(/\b(?:def|class) (\w+)/g)].map(match => match[1]).join(" "),
};

async function load() {
  const [{ default: MiniSearch }, { stemmer }, response] = await Promise.all([
    import("./vendor/minisearch.js"), import("./vendor/stemmer.js"), fetch(new URL("search.json", home)),
  ]);
  const stem = word => stemmer(word.replace(/is(e[drs]?|ing|ations?)$/, "iz$1")); // normalise is normalize
  const index = new MiniSearch({
    fields: ["title", "anchor", "page", "text", "code", "defined"],
    storeFields: ["title", "page", "text", "code", "place"],
    extractField: (section, name) => (FROM[name] ? FROM[name](section) : section[name]),
    tokenize: indexed,
    processTerm: word => (HAN.test(word) ? word : [...new Set([word, GREEK.get(word) ?? stem(word)])]),
  });
  await index.addAllAsync(await response.json());
  return query => {
    const typed = words(query);
    const phrase = plain(query).trim();
    const options = {
      tokenize: term => [term],
      processTerm: term => term,
      boost: { title: 4, anchor: 2, page: 2, code: 0.4, defined: 2 },
      bm25: { k: 0.6, b: 0.3, d: 0.5 }, // that a word is there says more than how often, in how long a section
      boostDocument: (id, term, section) => weight(id, section, phrase),
    };
    for (const combineWith of ["AND", "OR"]) { // all of it, or what there is
      const queries = typed.map((word, i) => clause(word, i === typed.length - 1, stem, combineWith));
      const found = index.search({ combineWith, queries }, options);
      if (found.some(section => !aside(section.id)) || combineWith === "OR") return found;
    }
  };
}

// What an article only lists, at its end.
const aside = id => /#references$|#.*\./.test(id);

// Articles come before lists, prose before references and the API, what is there word for word before what is not, the
// section that brings a thing up before those that come back to it, as before the page's introduction, which only names
// what follows, unless the page is called so. `place` counts a page's sections from 0, which is the introduction.
function weight(id, { title, text, code, place }, phrase) {
  const named = title.toLowerCase().startsWith(phrase);
  const there = named ? 4 : `${title} ${text} ${code}`.toLowerCase().includes(phrase) ? 3 : 1;
  const article = id.split("#")[0].split("/").length > 2;
  return (there / (1 + (place || (named ? 0 : 8)) / 8)) * (article ? 1 : 0.3) * (aside(id) ? 0.1 : 1);
}

// The sections of each page, the best page first: its best section counts whole, the next one half, and so on.
function grouped(found) {
  const pages = new Map();
  for (const section of found) {
    const page = section.id.split("#")[0];
    pages.set(page, [...(pages.get(page) ?? []), section]);
  }
  const score = sections => sections.reduceRight((sum, section) => section.score + sum / 2, 0);
  return [...pages.values()].sort((one, other) => score(other) - score(one));
}

// The text with what was found marked, in an element of this name.
function marked(name, text, terms) {
  const element = document.createElement(name);
  const escaped = terms.map(term => term.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).sort((a, b) => b.length - a.length);
  const pattern = new RegExp(`(${escaped.join("|")})`, "iu");
  text.split(pattern).forEach((part, i) => {
    element.append(i % 2 ? Object.assign(document.createElement("mark"), { textContent: part }) : part);
  });
  return element;
}

// About two lines of the text, or of the code, from shortly before the first thing found.
function excerpt(section, terms) {
  const find = text => Math.min(...terms.map(term => text.toLowerCase().indexOf(term)).filter(place => place >= 0));
  const text = isFinite(find(section.text)) || !isFinite(find(section.code)) ? section.text : section.code;
  const low = text.toLowerCase();
  const first = isFinite(find(text)) ? find(text) : 0;
  const start = first < 50 ? 0 : Math.max(0, low.indexOf(" ", first - 50) + 1 || first - 30);
  const from = start > first ? first : start;
  return (from ? "… " : "") + text.slice(from, from + 150) + (from + 150 < text.length ? " …" : "");
}

function item(sections, query) {
  const element = document.createElement("li");
  const runs = words(query);
  for (const section of sections.slice(0, SECTIONS)) {
    const terms = [...new Set([...runs, ...section.terms])];
    const link = document.createElement("a");
    link.href = new URL(section.id, home);
    link.append(marked("b", section.title, terms));
    if (section.id.includes("#")) link.append(` · ${section.page}`);
    link.append(marked("span", excerpt(section, terms), terms));
    element.append(link);
  }
  return element;
}

let ready;
let asked = 0;

async function show() {
  const query = input.value;
  const turn = ++asked;
  ready ??= load().catch(() => { ready = undefined; }); // the next key tries again
  const search = await ready;
  if (!search) status.textContent = dialog.dataset.failed;
  if (!search || turn !== asked) return; // more has been typed since
  const pages = words(query).length ? grouped(search(query)) : [];
  list.replaceChildren(...pages.slice(0, MOST).map(sections => item(sections, query)));
  const { none, one, other } = dialog.dataset;
  dialog.dataset.shown = query;
  status.textContent = !words(query).length ? "" : pages.length > 1 ? other.replace("#", pages.length) : pages.length ? one : none;
}

function open() {
  dialog.showModal();
  input.select();
  show();
}

document.querySelector(".search-open").addEventListener("click", open);
addEventListener("keydown", event => {
  const typing = event.target.closest("input, textarea, select, [contenteditable]");
  if (event.key === "/" && !typing && !dialog.open && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    open();
  }
});
input.addEventListener("input", event => event.isComposing || show()); // pinyin on its way to characters
input.addEventListener("compositionend", show);
dialog.querySelector("form").addEventListener("submit", async event => {
  event.preventDefault();
  await show(); // the index may be on its way
  list.querySelector("a")?.click();
});
dialog.addEventListener("keydown", event => {
  event.stopPropagation(); // the page's keys lead elsewhere
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step || event.isComposing) return;
  const stops = [input, ...list.querySelectorAll("a")];
  const next = stops[stops.indexOf(document.activeElement) + step];
  if (next) { event.preventDefault(); next.focus(); }
});
dialog.addEventListener("pointerdown", event => {
  if (event.target === dialog) dialog.close(); // beside it
});
dialog.addEventListener("click", event => {
  const elsewhere = event.ctrlKey || event.metaKey || event.shiftKey; // the result opens in another tab
  if (event.target.closest("a, .search-close") && !elsewhere) dialog.close();
});
