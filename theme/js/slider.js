// A slider chooses which frame a figure shows. A frame's file is named like the figure's, with the frame's number.

const PACE = 700; // ms for each frame while they are played
const still = matchMedia("(prefers-reduced-motion: reduce)"); // css/zhixing.css then hides the button

for (const slider of document.querySelectorAll(".slider")) {
  const [button, input, value] = ["button", "input", ".value"].map(part => slider.querySelector(part));
  const figure = slider.closest(".figure"), images = [...figure.querySelectorAll("img")];
  const labels = JSON.parse(slider.dataset.labels), posters = images.map(image => image.src), loaded = new Map();
  const description = images[0].alt.slice(0, images[0].alt.lastIndexOf(value.textContent)); // ends before the value
  const address = (index, frame) => posters[index].replace(/-(light|dark)\.svg$/, `-${frame}-$1.svg`);

  // Load the frames of the scheme that is shown when the reader first turns to the slider.
  const load = () => images.forEach((image, index) => {
    image.loading = "lazy"; // an image of the other scheme, which is hidden, is not loaded
    if (!image.checkVisibility() || loaded.has(index)) return;
    loaded.set(index, labels.map((_, frame) => Object.assign(new Image(), { src: address(index, frame) })));
  });
  const show = () => {
    value.textContent = input.ariaValueText = labels[input.value];
    images.forEach((image, index) => {
      image.src = image.closest("a").href = address(index, input.value);
      image.alt = description + labels[input.value];
    });
  };

  let timer;
  const mark = playing => {
    button.classList.toggle("playing", playing);
    button.ariaLabel = button.dataset[playing ? "pause" : "play"];
  };
  const stop = () => {
    clearInterval(timer);
    timer = undefined;
    mark(false);
  };
  const next = () => {
    if (still.matches || input.value === input.max) return stop();
    input.stepUp();
    show();
  };
  button.addEventListener("click", () => {
    if (timer) return stop();
    load();
    if (input.value === input.max) input.value = 0;
    show();
    timer = setInterval(next, PACE);
    mark(true);
  });
  input.addEventListener("input", () => {
    stop();
    show();
  });
  for (const kind of ["pointerenter", "pointerdown", "focusin"]) slider.addEventListener(kind, load);
  new IntersectionObserver(([{ isIntersecting }]) => { if (!isIntersecting) stop(); }).observe(figure);
}
