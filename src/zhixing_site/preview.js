// Added to every page of the preview: show what is wrong with it, and reload when there is something new.
(async ({ version, errors }) => {
  if (errors) {
    const panel = document.createElement("pre");
    panel.setAttribute("role", "alert");
    panel.textContent = errors;
    panel.style.cssText =
      "position:fixed;inset:auto 0 0;z-index:99;max-height:50vh;overflow:auto;margin:0;padding:1em;" +
      "background:#7f1d1d;color:#fff;font:13px/1.5 monospace;white-space:pre-wrap";
    document.body.append(panel);
  }
  for (;;) {
    try {
      const now = await (await fetch(`/preview?seen=${version}`)).text();
      if (now !== version) return location.reload();
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 1000)); // the server is away
    }
    // A browser opens few connections to one server: a page in the background keeps none.
    if (document.hidden) {
      await new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
    }
  }
})(document.currentScript.dataset);
