// What stands around an article: colours, languages, menu, contents, the way back to the top. It reads no sizes while the
// page is loading, since a browser that is asked for one must lay out the whole page at once.

// The colour scheme is the system's until the reader chooses one: partials/scheme.html reads it before the first paint.
const CHOICE = "zhixing-scheme";
const paint = scheme => { document.body.dataset.mdColorScheme = scheme; };
const system = matchMedia("(prefers-color-scheme: dark)");
let chosen = false;
document.querySelector(".scheme").addEventListener("click", () => {
  const scheme = document.body.dataset.mdColorScheme === "slate" ? "default" : "slate";
  chosen = true;
  paint(scheme);
  try { localStorage.setItem(CHOICE, scheme); } catch { /* for this page alone, then */ }
});
try { chosen = localStorage.getItem(CHOICE) !== null; } catch { /* no storage, no choice */ }
system.addEventListener("change", () => { if (!chosen) paint(system.matches ? "slate" : "default"); });

// The language switch keeps the section: it takes over the address's fragment.
const twin = document.querySelector(".twin");
const follow = () => { if (twin) twin.hash = location.hash; };
twin?.addEventListener("pointerdown", follow);
twin?.addEventListener("click", follow);
addEventListener("hashchange", follow);
follow();

const center = (link, box) => {
  box.scrollTop += link.getBoundingClientRect().top - box.getBoundingClientRect().top - box.clientHeight / 2;
};

// The menu of a narrow screen by keyboard: its labels are buttons, and what it covers is out of reach.
const drawer = document.querySelector("#__drawer");
const narrow = matchMedia("(max-width: 76.234375em)");
const opener = document.querySelector(".md-header [for=__drawer]");
const menu = document.querySelector(".md-sidebar--primary");
const covered = document.querySelectorAll(
  ".md-skip, .md-header__inner > :not(dialog), .md-content, .md-sidebar--secondary, .md-top, .md-footer");
const reach = () => {
  opener.ariaExpanded = drawer.checked;
  for (const each of covered) each.inert = drawer.checked && narrow.matches;
  for (const label of document.querySelectorAll(".md-sidebar--primary label:is([for^=__nav], [for=__toc])")) {
    const area = label.parentElement.querySelector(".md-nav__container > a");
    if (area) label.ariaLabel = area.textContent.trim(); // beside a link to the area, an arrow alone
    if (narrow.matches) [label.tabIndex, label.role] = [0, "button"];
    else ["tabindex", "role"].forEach(name => label.removeAttribute(name));
  }
};
narrow.addEventListener("change", reach);
drawer.addEventListener("change", () => {
  reach();
  const inside = [...menu.querySelectorAll("a[href], label[tabindex]")];
  if (drawer.checked) inside.find(each => each.checkVisibility({ visibilityProperty: true })).focus({ preventScroll: true });
});
reach();
// The focus goes into a panel that opens, and back to what opened it.
for (const toggle of document.querySelectorAll(".md-sidebar--primary .md-nav__toggle")) {
  const [outside, inside] = document.querySelectorAll(`.md-sidebar--primary label[for="${toggle.id}"]`);
  toggle.addEventListener("change", () => {
    if (!narrow.matches) return;
    (toggle.checked ? inside : outside).focus({ preventScroll: true }); // a panel comes from beside the window
    const link = inside.parentElement.querySelector(".md-nav__link--active");
    if (toggle.checked && link) center(link, link.closest(".md-nav__list"));
  });
}
// A link to a place on this page leaves the menu open otherwise.
menu.addEventListener("click", event => {
  if (event.target.closest("a") && drawer.checked) drawer.click();
});
addEventListener("keydown", event => {
  if ([" ", "Enter"].includes(event.key) && event.target.matches("label[tabindex]")) {
    event.preventDefault();
    event.target.click();
  }
  if (event.key === "Escape" && drawer.checked) {
    drawer.click();
    opener.focus();
  }
});

// The section that is being read: marked in the contents, and kept in the address, which the language switch follows.
const named = hash => {
  try { return document.getElementById(decodeURIComponent(hash.slice(1))); } catch { return null; } // a lone %
};
const entries = [...document.querySelectorAll(".md-nav--secondary .md-nav__link[href^='#']")];
const links = Map.groupBy(entries, link => named(link.hash)); // one in the menu, one beside the text
const box = document.querySelector(".md-sidebar--secondary .md-sidebar__scrollwrap");
const LINE = 80; // px from the top of the window, below the place where a heading comes that is jumped to
const passed = new Set();
let read, input, telling;

const mark = heading => {
  if (heading === read) return;
  for (const link of links.get(read) ?? []) link.classList.remove("md-nav__link--active");
  read = heading;
  for (const link of links.get(read) ?? []) link.classList.add("md-nav__link--active");
  const link = box.querySelector(".md-nav__link--active");
  if (link) center(link, box);
  else box.scrollTop = 0;
};

// What the address names, where it is in sight. At the end of the page, where a section never comes to the line, it is
// the section that is read.
const seen = () => {
  const heading = named(location.hash), place = heading?.getBoundingClientRect();
  return place && place.bottom > 0 && place.top < innerHeight ? heading : null;
};
const tell = () => {
  const there = seen();
  if (there && (there === read || !links.has(there))) return;
  history.replaceState(history.state, "", read ? `#${read.id}` : location.pathname + location.search);
};
const edge = heading => heading?.getBoundingClientRect().top;
// Of headings side by side, all of which are passed at once, it is the one that the address names.
const look = () => {
  const end = scrollY + innerHeight >= document.documentElement.scrollHeight - 1;
  const there = seen(), last = [...links.keys()].findLast(heading => passed.has(heading));
  mark(links.has(there) && (end || edge(there) === edge(last)) ? there : last);
};
addEventListener("hashchange", () => { input = false; look(); });
// The reader's scrolling rewrites the address, but not an image that moves the section when it is loaded.
for (const kind of ["wheel", "touchmove", "keydown", "pointerdown"]) {
  addEventListener(kind, () => { input = true; }, { passive: true });
}
addEventListener("scroll", () => {
  clearTimeout(telling);
  if (input) telling = setTimeout(tell, 250);
}, { passive: true });

const lines = new IntersectionObserver(changes => {
  for (const { target, isIntersecting } of changes) isIntersecting ? passed.delete(target) : passed.add(target);
  look();
}, { rootMargin: `${-LINE}px 0px 9999999px`, threshold: 1 });
for (const heading of links.keys()) lines.observe(heading);

// The header says the title of the page once it is out of sight.
const title = document.querySelector("article h1");
const header = document.querySelector(".md-header__title");
if (title) {
  new IntersectionObserver(([{ isIntersecting }]) => header.classList.toggle("md-header__title--active", !isIntersecting), {
    rootMargin: "-48px 0px 9999999px",
  }).observe(title);
}

// The way back to the top is offered to who scrolls up.
const up = document.querySelector(".md-top");
let last = 0;
addEventListener("scroll", () => {
  up.hidden = scrollY >= last || scrollY < innerHeight;
  last = scrollY;
}, { passive: true });
up.addEventListener("click", () => {
  scrollTo(0, 0);
  title.tabIndex = -1; // from there the keyboard goes on
  title.focus({ preventScroll: true });
});
