// Search the pages in this language. When the box first opens, the search library and the titles are fetched, then the
// text, which is much larger: until it is there, only titles and defined names are searched.
//
// English is matched by stemmed words and their prefixes; Chinese, which has no spaces, by any substring: a run of
// characters is indexed as overlapping pairs.

const dialog = document.querySelector(".search");
const input = dialog.querySelector("input");
const status = dialog.querySelector("[role=status]");
const list = dialog.querySelector("ol");
const home = new URL(`${dialog.dataset.home}/`, location);
const HAN = /^\p{sc=Han}/u;
const WORD = /\p{sc=Han}+|\d+\.\d+|(?:[^\P{L}\p{sc=Han}]|\p{N}|\p{M})+(?:[._](?:[^\P{L}\p{sc=Han}]|\p{N}|\p{M})+)*/gu;
const PAGES = 10; // shown
const SECTIONS = 3; // shown per page

// Map full-width letters, as typed in Chinese, and mathematical letters to plain ones.
const plain = text => text.normalize("NFKC").toLowerCase();

// 正态分布 becomes 正态, 态分, 分布; the last character is indexed too, so that each one begins a term.
const pairs = run => [...run].slice(1).map((character, i) => [...run][i] + character);

// torch.nn.silu is found as a whole and by its parts, 1.702 only as a whole.
const parts = word => (/[._]/.test(word) && !/^[\d.]+$/.test(word) ? [word, ...word.split(/[._]+/)] : [word]);

// FlashAttention is also found as flash attention.
const spaced = text => text.replace(/(?<=\p{Ll}{3})(?=\p{Lu}\p{Ll}{2})/gu, " ");

function tokenize(text) {
  const joined = (text.match(/\p{L}+/gu) ?? []).filter(word => spaced(word) !== word);
  return (plain(`${text} ${joined.map(spaced).join(" ")}`).match(WORD) ?? []).flatMap(word =>
    HAN.test(word) ? [...pairs(word), word.at(-1)] : parts(word));
}

// The search clause for a word of the query; the `last` one may be incomplete.
function clause(word, last, stem, combineWith) {
  if (HAN.test(word)) {
    return word.length > 1 ? { combineWith, queries: pairs(word) } : { queries: [word], prefix: true };
  }
  const named = /\.[^.]*\p{L}[^.]*$/u.test(word) ? [word.split(".").at(-1)] : []; // for torch.nn.SiLU also SiLU
  const fuzzy = word.length > 4 && !named.length ? 0.2 : false; // not to match torch.nn.GELU
  const whole = { queries: [word], fuzzy, prefix: last, weights: { fuzzy: 0.2, prefix: 0.6 } };
  return { combineWith: "OR", queries: [whole, stem(word), ...named] };
}

const GREEK = new Map(Object.entries({
  alpha: "α", beta: "β", gamma: "γ", delta: "δ", epsilon: "ε", eta: "η", theta: "θ", kappa: "κ", lambda: "λ", mu: "μ",
  xi: "ξ", pi: "π", rho: "ρ", sigma: "σ", tau: "τ", phi: "φ", chi: "χ", psi: "ψ", omega: "ω",
}).map(([name, letter]) => [letter, name]));
const STOP_WORDS = new Set("a an and are as at be by do does for from how in is it of on or that the to what why with".split(" "));

// The words of the query without stop words, unless there are no others.
function words(query) {
  const all = plain(query).replace(/(?<=\p{sc=Han})[的地得了](?=\p{sc=Han})/gu, " ").match(WORD) ?? [];
  const kept = all.filter(word => !STOP_WORDS.has(word));
  return kept.length ? kept : all;
}

async function fetched(name) {
  const response = await fetch(new URL(name, home));
  if (!response.ok) throw new Error(`${name}: ${response.status}`);
  return response.json();
}

const libraries = () => Promise.all([import("./vendor/minisearch.js"), import("./vendor/stemmer.js")]);

// Index the sections, some at a time, so that keys get through; return the function that finds those for a query.
async function indexed(sections, chunkSize) {
  const [{ default: MiniSearch }, { stemmer }] = await libraries();
  const stem = word => stemmer(word.replace(/is(e[drs]?|ing|ations?)$/, "iz$1")); // normalise is normalize
  const index = new MiniSearch({
    fields: ["title", "anchor", "page", "text", "code", "defined"],
    storeFields: ["title", "page", "text", "code", "place"],
    extractField: (section, name) => (name === "anchor" ? section.id.split("#")[1] ?? "" : section[name]),
    tokenize,
    processTerm: word => (HAN.test(word) ? word : [...new Set([word, GREEK.get(word) ?? stem(word)])]),
  });
  await index.addAllAsync(sections, { chunkSize });
  return query => {
    const typed = words(query);
    const phrase = plain(query).trim();
    const options = {
      tokenize: term => [term],
      processTerm: term => term,
      boost: { title: 4, anchor: 2, page: 2, code: 0.4, defined: 2 },
      bm25: { k: 0.6, b: 0.3, d: 0.5 }, // presence of a word counts more than frequency and section length
      boostDocument: (id, term, section) => weight(id, section, phrase),
    };
    for (const combineWith of ["AND", "OR"]) { // all words, else any
      const queries = typed.map((word, i) => clause(word, i === typed.length - 1, stem, combineWith));
      const found = index.search({ combineWith, queries }, options);
      if (found.some(section => !aside(section.id)) || combineWith === "OR") return found;
    }
  };
}

// References and API entries, at an article's end.
const aside = id => /#references$|#.*\./.test(id);

// Rank articles above lists, these above the glossary, prose above references and the API, the exact phrase above other
// matches, earlier sections above later ones. The introduction, at `place` 0, only names what follows: it ranks like
// place 8, unless the title begins with the phrase.
function weight(id, { title, text, code, place }, phrase) {
  const named = title.toLowerCase().startsWith(phrase);
  const match = named ? 4 : `${title} ${text} ${code}`.toLowerCase().includes(phrase) ? 3 : 1;
  const article = id.split("#")[0].split("/").length > 2;
  if (id.startsWith("glossary/#")) return match * 0.01; // in any order
  return (match / (1 + (place || (named ? 0 : 8)) / 8)) * (article ? 1 : 0.3) * (aside(id) ? 0.1 : 1);
}

// Group sections by page, best page first: its best section counts fully, the next one half, and so on.
function grouped(found) {
  const pages = new Map();
  for (const section of found) {
    const page = section.id.split("#")[0];
    pages.set(page, [...(pages.get(page) ?? []), section]);
  }
  const score = sections => sections.reduceRight((sum, section) => section.score + sum / 2, 0);
  return [...pages.values()].sort((one, other) => score(other) - score(one));
}

// An element of this name with the text, its matches in <mark>.
function marked(name, text, terms) {
  const element = document.createElement(name);
  const escaped = terms.map(term => term.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).sort((a, b) => b.length - a.length);
  const pattern = new RegExp(`(${escaped.join("|")})`, "iu");
  text.split(pattern).forEach((part, i) => {
    element.append(i % 2 ? Object.assign(document.createElement("mark"), { textContent: part }) : part);
  });
  return element;
}

// About two lines of the text or the code, from shortly before the first match.
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

let search; // finds sections: at first by their titles
let loading; // a promise, until loading fails
let entered = false; // follow the first result as soon as there is one

async function load() {
  const [sections] = await Promise.all([fetched("search.json"), libraries()]);
  search = await indexed(sections.map(section => ({ ...section, text: "", code: "" })), 500);
  dialog.dataset.searched = "titles";
  show();
  const texts = await fetched("search-text.json");
  search = await indexed(sections.map((section, i) => ({ ...section, ...texts[i] })), 20);
  dialog.dataset.searched = "everything";
  if (!list.contains(document.activeElement)) show(); // not to remove the focused result
}

function fail() {
  loading = undefined; // the next key retries
  status.textContent = dialog.dataset.failed;
}

function show() {
  loading ??= load().catch(fail);
  if (!search) return;
  const query = input.value;
  const pages = words(query).length ? grouped(search(query)) : [];
  list.replaceChildren(...pages.slice(0, PAGES).map(sections => item(sections, query)));
  dialog.dataset.shown = query;
  status.textContent = words(query).length ? found(pages.length) : "";
  if (entered && dialog.open) list.querySelector("a")?.click();
}

function found(pages) {
  const { searched, partial, none, one, other } = dialog.dataset;
  if (searched === "titles") return partial;
  return pages > 1 ? other.replace("#", pages) : pages ? one : none;
}

function open() {
  entered = false;
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
input.addEventListener("input", event => {
  entered = false;
  if (!event.isComposing) show(); // pinyin still being composed
});
input.addEventListener("compositionend", show);
dialog.querySelector("form").addEventListener("submit", event => {
  event.preventDefault();
  entered = true;
  show();
});
dialog.addEventListener("keydown", event => {
  event.stopPropagation(); // not a shortcut of the page
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step || event.isComposing) return;
  const stops = [input, ...list.querySelectorAll("a")];
  const next = stops[stops.indexOf(document.activeElement) + step];
  if (next) { event.preventDefault(); next.focus(); }
});
dialog.addEventListener("pointerdown", event => {
  if (event.target === dialog) dialog.close(); // on the backdrop
});
dialog.addEventListener("click", event => {
  const newTab = event.ctrlKey || event.metaKey || event.shiftKey;
  if (event.target.closest("a, .search-close") && !newTab) dialog.close();
});
