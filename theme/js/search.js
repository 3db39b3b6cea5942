// Search the pages in this language. When the box first opens, the search library is fetched, with titles and keywords
// of pages, then titles of sections, then the text, each much larger than the one before. What is there is searched.

const dialog = document.querySelector(".search");
const input = dialog.querySelector("input");
const status = dialog.querySelector("[role=status]");
const list = dialog.querySelector("ol");
const home = new URL(`${dialog.dataset.home}/`, location);
const PAGES = 10; // shown
const SECTIONS = 3; // shown per page

async function fetched(name) {
  const response = await fetch(new URL(name, home));
  if (!response.ok) throw new Error(`${name}: ${response.status}`);
  return response.json();
}

// The second and the third are imported by the first; they are fetched at the same time.
const libraries = ["./ranking.js", "./vendor/minisearch.js", "./vendor/stemmer.js"];

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

function item(sections, typed) {
  const element = document.createElement("li");
  for (const section of sections.slice(0, SECTIONS)) {
    const whole = typed.filter(word => section.all.includes(word));
    const terms = [...new Set([...typed, ...section.terms.filter(term => !whole.some(word => word.includes(term)))])];
    const link = document.createElement("a");
    link.href = new URL(section.id, home);
    link.append(marked("b", section.title, terms));
    if (section.id.includes("#")) link.append(` · ${section.page}`);
    link.append(marked("span", excerpt(section, terms), terms));
    element.append(link);
  }
  return element;
}

let ranking; // the module
let search; // finds sections: at first by their titles
let loading; // a promise, until loading fails
let entered = false; // follow the first result as soon as there is one

async function load() {
  const [pages, module] = await Promise.all([fetched("search-pages.json"), ...libraries.map(name => import(name))]);
  ranking = module;
  const [others] = await Promise.all([fetched("search-sections.json"), offer("pages", titles(pages), 500)]);
  const sections = [...pages, ...others];
  const [texts] = await Promise.all([fetched("search-text.json"), offer("titles", titles(sections), 500)]);
  await offer("everything", sections.map((section, i) => ({ ...section, ...texts[i] })), 20);
}

const titles = sections => sections.map(section => ({ ...section, text: "", code: "" }));

async function offer(name, sections, chunkSize) {
  search = await ranking.indexed(sections, chunkSize);
  dialog.dataset.searched = name;
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
  const typed = ranking.words(query);
  const pages = typed.length ? search(query) : [];
  list.replaceChildren(...pages.slice(0, PAGES).map(sections => item(sections, typed)));
  dialog.dataset.shown = query;
  status.textContent = typed.length ? found(pages.length) : "";
  if (entered && dialog.open) list.querySelector("a")?.click();
}

function found(pages) {
  const { searched, partial, none, one, other } = dialog.dataset;
  if (searched !== "everything") return partial;
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
