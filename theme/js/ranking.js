// Rank pages, and sections on each page, for a query.
//
// English is matched by stemmed words and their prefixes; Chinese, which has no spaces, by any substring: a run of
// characters is indexed as overlapping pairs. Each word or pair is searched for alone. A section counts the words that it
// holds. A page counts its best sections, each word once more where it is best, also among the page's keywords, and most
// if a single keyword, or its title, has the words of the query.

import MiniSearch from "./vendor/minisearch.js";
import { stemmer } from "./vendor/stemmer.js";

const HAN = /^\p{sc=Han}/u;
const WORD = /\p{sc=Han}+|\d+\.\d+|(?:[^\P{L}\p{sc=Han}]|\p{N}|\p{M})+(?:[._](?:[^\P{L}\p{sc=Han}]|\p{N}|\p{M})+)*/gu;

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

const GREEK = new Map(Object.entries({
  alpha: "α", beta: "β", gamma: "γ", delta: "δ", epsilon: "ε", eta: "η", theta: "θ", kappa: "κ", lambda: "λ", mu: "μ",
  xi: "ξ", pi: "π", rho: "ρ", sigma: "σ", tau: "τ", phi: "φ", chi: "χ", psi: "ψ", omega: "ω",
}).map(([name, letter]) => [letter, name]));
const STOP_WORDS = new Set(
  "a an and are as at be between by can do does for from how i in is it my of on or that the to vs what when which why with"
    .split(" "));
const STOP_RUNS = /(?<=\p{sc=Han})[的地得了](?=\p{sc=Han})|是什么|为什么|什么时候|什么|怎么办|怎么用|怎么|如何|有哪些|哪些|哪个|区别|[吗呢]$/gu;

// The words of the query without stop words, unless there are no others.
export function words(query) {
  const kept = (plain(query).replace(STOP_RUNS, " ").match(WORD) ?? []).filter(word => !STOP_WORDS.has(word));
  return kept.length ? kept : plain(query).match(WORD) ?? [];
}

const stem = word => stemmer(word.replace(/is(e[drs]?|ing|ations?)$/, "iz$1")); // normalise is normalize

const stemmed = new Map(); // the forms of each word so far
function forms(word) {
  if (HAN.test(word)) return word;
  if (!stemmed.has(word)) stemmed.set(word, [...new Set([word, GREEK.get(word) ?? stem(word)])]);
  return stemmed.get(word);
}

const BOOST = { title: 4, anchor: 2, page: 2, code: 0.4, defined: 2, text: 1, keywords: 4 };
const KEYWORDS = "@"; // in the id of a page's keywords, which are no section, and never shown
const OPTIONS = {
  tokenize: term => [term],
  processTerm: term => term,
  boost: BOOST,
  bm25: { k: 0.6, b: 0.3, d: 0.5 }, // presence of a word counts more than frequency and section length
};

// The searches for a query: one for each word, and for each pair of characters in a run of Chinese. The last word may be
// incomplete.
function searches(query) {
  return words(query).flatMap((word, i, all) => {
    if (HAN.test(word)) {
      return word.length > 2 ? pairs(word).map(pair => ({ word: pair, weight: 0.6, queries: [pair] }))
        : [{ word, weight: 1, queries: [word], prefix: word.length < 2 }];
    }
    const named = /\.[^.]*\p{L}[^.]*$/u.test(word) ? [word.split(".").at(-1)] : []; // for torch.nn.SiLU also SiLU
    const fuzzy = word.length > 4 && !named.length ? 0.2 : false; // not to match torch.nn.GELU
    const prefix = i === all.length - 1;
    const whole = { queries: [word], fuzzy, prefix, weights: { fuzzy: 0.2, prefix: 0.3 } };
    return [{ word, weight: 1, queries: [whole, stem(word), ...named] }];
  });
}

// References and API entries, at an article's end.
const aside = id => /#references$|#.*\./.test(id);

// An article counts more than a list, and a list more than the glossary.
const kind = page => (page === "glossary/" ? 0.01 : page.split("/").length > 2 ? 1 : 0.3);

// Prose counts more than references and the API, the exact phrase more than other matches, earlier sections more than
// later ones. The introduction, at `place` 0, only names what follows: it ranks like place 12, unless the title begins
// with the phrase.
function place(section, phrase) {
  const named = section.title.toLowerCase().startsWith(phrase);
  const match = named ? 4 : section.all.includes(phrase) ? 3 : 1;
  return (match / (1 + (section.place || (named ? 0 : 12)) / 8)) * (aside(section.id) ? 0.1 : 1);
}

const sum = values => values.reduce((total, value) => total + value, 0);

// Index the sections, some at a time, so that keys get through. Return the function that finds the best pages for a
// query, each as a list of its sections, best first.
export async function indexed(sections, chunkSize) {
  const index = new MiniSearch({
    fields: Object.keys(BOOST),
    extractField: (section, name) => section[name] ?? "",
    tokenize,
    processTerm: forms,
  });
  const known = new Map(sections.map(section => [section.id, {
    ...section,
    address: section.id.split("#")[0],
    all: `${section.title} ${section.text} ${section.code}`.toLowerCase(),
  }]));
  const starts = sections.filter(section => !section.place);
  // The words of each name of a page.
  const names = new Map(starts.map(({ id, title, keywords }) => (
    [id, [title, ...keywords].map(name => new Set(tokenize(name).flatMap(forms)))]
  )));
  await index.addAllAsync(sections.map(({ keywords, ...section }) => (
    { ...section, anchor: section.id.split("#")[1] ?? section.id.replaceAll("/", " ") }
  )), { chunkSize });
  index.addAll(starts.map(({ id, keywords }) => ({ id: id + KEYWORDS, keywords: keywords.join(" ") })));
  return query => {
    const all = searches(query);
    const found = all.map(({ word, ...search }) => index.search({ combineWith: "OR", ...search }, OPTIONS));
    const pages = matches(all, found, known, plain(query).trim());
    for (const page of pages) page.names = names.get(page.address);
    return ranked(pages, all, starts.length, words(query).filter(word => HAN.test(word) && word.length > 2));
  };
}

// The pages that match any of the searches: sections with their scores, and the best score of each search.
function matches(all, found, known, phrase) {
  const pages = new Map();
  found.forEach((results, i) => results.forEach(({ id, score, terms }) => {
    const section = known.get(id.replace(KEYWORDS, ""));
    const page = pages.get(section.address) ?? { address: section.address, sections: new Map(), best: all.map(() => 0) };
    const match = page.sections.get(section.id) ?? { ...section, score: 0, words: 0, terms: [] };
    const value = all[i].weight * score;
    page.best[i] = Math.max(page.best[i], value * (aside(id) ? 0.1 : 1));
    if (!id.endsWith(KEYWORDS)) {
      match.score += value * place(section, phrase);
      match.words += 1;
      match.terms.push(...terms);
    }
    pages.set(section.address, page);
    page.sections.set(section.id, match);
  }));
  return [...pages.values()];
}

// The sections of each page, both in their order. A section with a whole run of Chinese, one of `runs`, counts up to
// twice. A page without some of the words falls the more, the rarer these are, and is left out if it has less than half
// of what the best one has.
function ranked(pages, all, count, runs) {
  const rarity = all.map(({ weight }, i) => {
    const holding = pages.filter(page => page.best[i]).length;
    return holding && weight * Math.log(1 + (count - holding + 0.5) / (holding + 0.5));
  });
  const share = holds => sum(rarity.filter((_, i) => holds(all[i].word, i))) / sum(rarity);
  for (const page of pages) {
    const sections = [...page.sections.values()];
    for (const section of sections) {
      const whole = runs.filter(run => section.all.includes(run)).length / (runs.length || 1);
      section.score *= (1 + whole) * (section.words / all.length) ** 1.5;
    }
    page.found = sections.sort((one, other) => other.score - one.score);
    page.share = share((_, i) => page.best[i]);
    const best = page.found.slice(0, 6).reduceRight((total, section) => section.score + total / 2, 0);
    const named = Math.max(...page.names.map(name => share(word => name.has(word) || name.has(stem(word)))));
    page.score = kind(page.address) * (best + sum(page.best) / 2) * (1 + 4 * named ** 2) * page.share ** 2;
  }
  const most = Math.max(...pages.map(page => page.share));
  return pages
    .filter(page => page.share > most / 2)
    .sort((one, other) => other.score - one.score)
    .map(page => page.found);
}
