// Lays a slider over each row of frames, to drag through them by mouse, finger or arrow keys, and a button that plays
// them once. It only turns the radio buttons that are there: without it they are turned by hand.
"use strict";

for (const frames of document.querySelectorAll(".tf-frames")) layOver(frames);

function layOver(frames) {
  const radios = [...frames.querySelectorAll(":scope > input[type=radio]")];
  const title = frames.querySelector(":scope > .tf-scale");
  const last = radios.length - 1;
  const slider = document.createElement("input");
  Object.assign(slider, { type: "range", min: 0, max: last, step: 1, className: "tf-slider" });
  slider.setAttribute("aria-labelledby", title.id);
  slider.style.setProperty("--frames", radios.length);

  const follow = () => {
    const i = radios.findIndex((radio) => radio.checked);
    slider.value = i;
    slider.setAttribute("aria-valuetext", radios[i].labels[0].textContent);
    slider.setAttribute("aria-describedby", radios[i].getAttribute("aria-describedby"));
  };
  const turn = (i) => {
    radios[i].checked = true;
    follow();
  };
  for (const radio of radios) {
    radio.hidden = true;
    radio.addEventListener("change", follow); // its label still turns it
  }
  slider.addEventListener("input", () => turn(slider.valueAsNumber));
  title.before(slider);
  follow();
  if (!matchMedia("(prefers-reduced-motion: reduce)").matches) title.after(player(frames, slider, turn, last));
}

function player(frames, slider, turn, last) {
  const button = document.createElement("button");
  Object.assign(button, { type: "button", className: "tf-play" });
  let timer = 0;
  const set = (on) => {
    clearInterval(timer);
    timer = on ? setInterval(step, 700) : 0;
    button.textContent = on ? "❚❚" : "▶";
    button.setAttribute("aria-label", on ? "Pause" : "Play all frames");
  };
  const step = () => (slider.valueAsNumber < last ? turn(slider.valueAsNumber + 1) : set(false));
  button.addEventListener("click", () => {
    if (!timer && slider.valueAsNumber === last) turn(0);
    set(!timer);
  });
  for (const touch of ["pointerdown", "keydown"])
    frames.addEventListener(touch, (event) => event.target === button || set(false)); // the reader takes over
  set(false);
  return button;
}
