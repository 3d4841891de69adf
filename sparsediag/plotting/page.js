"use strict";
{
  const plots = [...document.querySelectorAll(".turn")];
  const config = { responsive: true, displaylogo: false, displayModeBar: false };
  let eye = null, busy = false;

  const looks = () => {
    const style = getComputedStyle(document.body);
    const gridcolor = style.getPropertyValue("--line").trim();
    const axis = { color: style.color, gridcolor, showbackground: false };
    return { xaxis: axis, yaxis: axis, zaxis: axis, font: style.fontFamily };
  };

  const draw = async (plot) => {
    const { data, layout, frames } = JSON.parse(plot.querySelector("script").textContent);
    const look = looks(), axes = layout.scene ?? layout;
    for (const axis of ["xaxis", "yaxis", "zaxis"]) axes[axis] = { ...axes[axis], ...look[axis] };
    if (layout.scene) layout.scene.camera.eye = eye ??= layout.scene.camera.eye;
    layout.paper_bgcolor = layout.plot_bgcolor = "rgba(0,0,0,0)";
    layout.font = { family: look.font, size: 11, color: look.xaxis.color };
    await Plotly.newPlot(plot, { data, layout, config, frames });
    plot.on("plotly_relayout", (change) => {
      if (change["scene.camera"]) turn(change["scene.camera"].eye, plot);
    });
  };

  // all surfaces are seen from the same side
  const turn = async (to, from) => {
    if (busy) return;
    busy = true;
    eye = to;
    await Promise.all(
      plots.filter((plot) => plot !== from && plot.layout)
        .map((plot) => Plotly.relayout(plot, { "scene.camera.eye": eye })),
    );
    busy = false;
  };

  const keys = { ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0], ArrowUp: [0, 0.12], ArrowDown: [0, -0.12] };
  for (const plot of plots) {
    plot.addEventListener("keydown", (event) => {
      if (!eye || !keys[event.key]) return;
      event.preventDefault();
      const [around, up] = keys[event.key], { x, y, z } = eye;
      const flat = Math.hypot(x, y), angle = Math.atan2(y, x) + around;
      const tilt = Math.min(1.5, Math.max(-1.5, Math.atan2(z, flat) + up)), reach = Math.hypot(flat, z);
      turn({
        x: reach * Math.cos(tilt) * Math.cos(angle),
        y: reach * Math.cos(tilt) * Math.sin(angle),
        z: reach * Math.sin(tilt),
      });
    });
  }

  // one after another, each on the screen before the next is begun
  const frame = () => new Promise((done) => { requestAnimationFrame(() => setTimeout(done)); });
  let last = frame();
  const seen = new IntersectionObserver((entries) => {
    for (const { target } of entries.filter((entry) => entry.isIntersecting)) {
      seen.unobserve(target);
      last = last.then(() => draw(target)).catch(console.error).then(frame);
    }
  });
  plots.forEach((plot) => seen.observe(plot));

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    const { color, gridcolor } = looks().xaxis, change = {};
    for (const axis of ["xaxis", "yaxis", "zaxis"]) {
      change[`scene.${axis}.color`] = color;
      change[`scene.${axis}.gridcolor`] = gridcolor;
    }
    plots.filter((plot) => plot.layout).forEach((plot) => Plotly.relayout(plot, change));
  });
}
