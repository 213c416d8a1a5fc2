"use strict";
(() => {
  const planes = [...document.querySelectorAll(".plane")];
  const play = document.getElementById("play");
  const mix = document.getElementById("mix");
  const shown = document.getElementById("shown");
  let playing = true;
  let second = false;

  const other = () => document.querySelector("input[name=other]:checked").value;

  function draw() {
    const share = Number(mix.value) / 100;
    const above = playing ? (second ? 1 : 0) : share;
    for (const plane of planes) {
      for (const image of plane.querySelectorAll("img")) {
        const name = image.dataset.name;
        image.style.opacity = name === "fixed" ? 1 : name === other() ? above : 0;
      }
    }
    shown.textContent = above === 0 ? "fixed" : above === 1 ? other() : `fixed and ${other()}`;
  }

  function set(on) {
    playing = on;
    play.textContent = on ? "pause" : "play";
    play.setAttribute("aria-pressed", String(on));
    draw();
  }

  play.addEventListener("click", () => set(!playing));
  mix.addEventListener("input", () => set(false));
  for (const choice of document.querySelectorAll("input[name=other]")) choice.addEventListener("change", draw);
  setInterval(() => {
    if (playing) {
      second = !second;
      draw();
    }
  }, 600);
  draw();
})();
