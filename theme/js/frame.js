// The page around an article: colour scheme, language switch, menu, contents, back-to-top button. It reads no sizes while
// the page is loading, since reading one forces a layout of the whole page.

// The colour scheme is the system's until the reader chooses one: partials/scheme.html reads it before the first paint.
const CHOICE = "zhixing-scheme";
const paint = scheme => { document.body.dataset.mdColorScheme = scheme; };
const system = matchMedia("(prefers-color-scheme: dark)");
let chosen = false;
document.querySelector(".scheme").addEventListener("click", () => {
  const scheme = document.body.dataset.mdColorScheme === "slate" ? "default" : "slate";
  chosen = true;
  paint(scheme);
  try { localStorage.setItem(CHOICE, scheme); } catch { /* not stored: only for this page */ }
});
try { chosen = localStorage.getItem(CHOICE) !== null; } catch { /* no storage, no choice */ }
system.addEventListener("change", () => { if (!chosen) paint(system.matches ? "slate" : "default"); });

// The language switch keeps the section: it copies the URL's fragment.
const translation = document.querySelector(".twin");
const follow = () => { if (translation) translation.hash = location.hash; };
translation?.addEventListener("pointerdown", follow);
translation?.addEventListener("click", follow);
addEventListener("hashchange", follow);
follow();

const center = (link, box) => {
  box.scrollTop += link.getBoundingClientRect().top - box.getBoundingClientRect().top - box.clientHeight / 2;
};

// Keyboard access to the menu of a narrow screen: its labels are buttons, and what it covers is inert.
const drawer = document.querySelector("#__drawer");
const narrow = matchMedia("(max-width: 76.234375em)");
const opener = document.querySelector(".md-header [for=__drawer]");
const menu = document.querySelector(".md-sidebar--primary");
const covered = document.querySelectorAll(
  ".md-skip, .md-header__inner > :not(dialog), .md-content, .md-sidebar--secondary, .md-top, .md-footer");
const syncMenu = () => {
  opener.ariaExpanded = drawer.checked;
  for (const each of covered) each.inert = drawer.checked && narrow.matches;
  for (const label of document.querySelectorAll(".md-sidebar--primary label:is([for^=__nav], [for=__toc])")) {
    const area = label.parentElement.querySelector(".md-nav__container > a");
    if (area) label.ariaLabel = area.textContent.trim(); // only an arrow, next to a link to the area
    if (narrow.matches) [label.tabIndex, label.role] = [0, "button"];
    else ["tabindex", "role"].forEach(name => label.removeAttribute(name));
  }
};
narrow.addEventListener("change", syncMenu);
drawer.addEventListener("change", () => {
  syncMenu();
  const inside = [...menu.querySelectorAll("a[href], label[tabindex]")];
  if (drawer.checked) inside.find(each => each.checkVisibility({ visibilityProperty: true })).focus({ preventScroll: true });
});
syncMenu();
// Opening a panel moves the focus into it, closing it moves it back.
for (const toggle of document.querySelectorAll(".md-sidebar--primary .md-nav__toggle")) {
  const [outside, inside] = document.querySelectorAll(`.md-sidebar--primary label[for="${toggle.id}"]`);
  toggle.addEventListener("change", () => {
    if (!narrow.matches) return;
    (toggle.checked ? inside : outside).focus({ preventScroll: true }); // a panel slides in from off-screen
    const link = inside.parentElement.querySelector(".md-nav__link--active");
    if (toggle.checked && link) center(link, link.closest(".md-nav__list"));
  });
}
// Close the menu after a link within the page, too.
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

// Mark the section being read in the contents, and keep it in the URL, which the language switch follows.
const named = hash => {
  try { return document.getElementById(decodeURIComponent(hash.slice(1))); } catch { return null; } // a lone %
};
const entries = [...document.querySelectorAll(".md-nav--secondary .md-nav__link[href^='#']")];
const links = Map.groupBy(entries, link => named(link.hash)); // one in the menu, one in the sidebar
const box = document.querySelector(".md-sidebar--secondary .md-sidebar__scrollwrap");
const LINE = 80; // px from the top of the window, below where a linked heading lands
const passed = new Set();
let read, input, timer;

const mark = heading => {
  if (heading === read) return;
  for (const link of links.get(read) ?? []) link.classList.remove("md-nav__link--active");
  read = heading;
  for (const link of links.get(read) ?? []) link.classList.add("md-nav__link--active");
  const link = box.querySelector(".md-nav__link--active");
  if (link) center(link, box);
  else box.scrollTop = 0;
};

// The URL's target if visible; at the end of the page, where no heading reaches the line, it counts as being read.
const visibleTarget = () => {
  const heading = named(location.hash), place = heading?.getBoundingClientRect();
  return place && place.bottom > 0 && place.top < innerHeight ? heading : null;
};
const updateURL = () => {
  const target = visibleTarget();
  if (target && (target === read || !links.has(target))) return;
  history.replaceState(history.state, "", read ? `#${read.id}` : location.pathname + location.search);
};
const edge = heading => heading?.getBoundingClientRect().top;
// Of headings side by side, which pass the line together, choose the URL's target.
const update = () => {
  const end = scrollY + innerHeight >= document.documentElement.scrollHeight - 1;
  const target = visibleTarget(), last = [...links.keys()].findLast(heading => passed.has(heading));
  mark(links.has(target) && (end || edge(target) === edge(last)) ? target : last);
};
addEventListener("hashchange", () => { input = false; update(); });
// Only the reader's scrolling rewrites the URL, not an image that moves the section when it loads.
for (const kind of ["wheel", "touchmove", "keydown", "pointerdown"]) {
  addEventListener(kind, () => { input = true; }, { passive: true });
}
addEventListener("scroll", () => {
  clearTimeout(timer);
  if (input) timer = setTimeout(updateURL, 250);
}, { passive: true });

const lines = new IntersectionObserver(changes => {
  for (const { target, isIntersecting } of changes) isIntersecting ? passed.delete(target) : passed.add(target);
  update();
}, { rootMargin: `${-LINE}px 0px 9999999px`, threshold: 1 });
for (const heading of links.keys()) lines.observe(heading);

// The header shows the page's title once it is out of view.
const title = document.querySelector("article h1");
const header = document.querySelector(".md-header__title");
if (title) {
  new IntersectionObserver(([{ isIntersecting }]) => header.classList.toggle("md-header__title--active", !isIntersecting), {
    rootMargin: "-48px 0px 9999999px",
  }).observe(title);
}

// Show the back-to-top button on scrolling up.
const up = document.querySelector(".md-top");
let last = 0;
addEventListener("scroll", () => {
  up.hidden = scrollY >= last || scrollY < innerHeight;
  last = scrollY;
}, { passive: true });
up.addEventListener("click", () => {
  scrollTo(0, 0);
  title.tabIndex = -1; // the next Tab starts there
  title.focus({ preventScroll: true });
});
