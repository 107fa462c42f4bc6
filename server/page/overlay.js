// Pictures with something drawn over them: boxes, points and polygons, and the heat of attention.

import { el, percent, svg } from "./dom.js";
import { pictureElement } from "./pictures.js";

/** The highest that a picture is drawn, in CSS pixels. */
const HEIGHT = 340;

/** How many colors page.css has for labels. */
const COLORS = 6;

/**
 * Points of a scale of colors from low to high, which is ordered in lightness too.
 *
 * Source: Smith and van der Walt 2015, `inferno` of matplotlib, at every quarter.
 */
const SCALE = [
  [0, 0, 4],
  [87, 16, 110],
  [188, 55, 84],
  [249, 142, 9],
  [252, 255, 164],
];

/** Makes a frame with the proportions of a picture, in which things are placed by fractions. */
function frame(picture, alt, ...over) {
  const frame = el("div", { class: "frame" }, pictureElement(picture, alt), ...over);
  if (picture.width) {
    const proportions = picture.width / picture.height;
    frame.style.aspectRatio = String(proportions);
    frame.style.width = `min(100%, ${Math.round(HEIGHT * proportions)}px)`;
  }
  return frame;
}

/** Numbers labels, so that a label has one color. */
export function colorsOf(labels) {
  const distinct = [...new Set(labels)];
  return (label) => distinct.indexOf(label) % COLORS;
}

/**
 * Draws forms over a picture. An object has `label`, `fractions`, `form` (`box`, `point` or `polygon`) and `color`.
 * Gives back the element, and what marks one of them by its number.
 */
export function drawForms(picture, objects) {
  const shapes = objects.map((object) => svg("g", { class: `form color-${object.color}` }, ...shapesOf(object)));
  const labels = objects.map((object) => label(object));
  const sheet = svg(
    "svg",
    { class: "forms", viewBox: "0 0 1 1", preserveAspectRatio: "none", "aria-hidden": "true" },
    ...shapes,
  );
  const alt = `${picture.name}, with ${objects.map((object) => object.label || "a form without a label").join(", ")}`;
  const element = frame(picture, alt, sheet, ...labels);
  const mark = (chosen) => {
    element.classList.toggle("has-mark", chosen !== null);
    [...shapes.entries()].forEach(([index, shape]) => {
      shape.classList.toggle("marked", index === chosen);
      labels[index].classList.toggle("marked", index === chosen);
    });
  };
  return { element, mark };
}

function points(fractions) {
  const all = [];
  for (let at = 0; at + 1 < fractions.length; at += 2) all.push([fractions[at], fractions[at + 1]]);
  return all;
}

/** Each form is drawn twice: a wide dark line below makes it visible on any picture. */
function shapesOf({ form, fractions }) {
  const made = (part) => {
    const options = { class: `form-${part}`, "vector-effect": "non-scaling-stroke" };
    if (form === "box") {
      const [left, top, right, bottom] = fractions;
      return svg("rect", { x: left, y: top, width: right - left, height: bottom - top, ...options });
    }
    if (form === "polygon") return svg("polygon", { points: points(fractions).join(" "), ...options });
    // A line of no length with round ends is a dot that stays round.
    const dots = points(fractions).map(([x, y]) => `M${x} ${y}h0`);
    return svg("path", { d: dots.join(""), ...options, class: `form-${part} form-dot` });
  };
  return [made("edge"), made("line")];
}

function label({ label, fractions, color }) {
  const corners = points(fractions);
  const left = Math.min(...corners.map(([x]) => x));
  const top = Math.min(...corners.map(([, y]) => y));
  const tag = el("span", { class: `form-label color-${color}`, text: label, "aria-hidden": "true" });
  tag.style.left = `${100 * Math.min(Math.max(left, 0), 1)}%`;
  tag.style.top = `${100 * Math.min(Math.max(top, 0), 1)}%`;
  // At the upper edge of the picture there is no room above the form, and at the right edge none beside it.
  tag.classList.toggle("below", top < 0.07);
  tag.classList.toggle("leftwards", left > 0.75);
  return tag;
}

/** A picture with a canvas over it that shows the shares of its patches. */
export class HeatPicture {
  /** @param visible the part of the picture that the encoder sees, as fractions: left, top, right, bottom. */
  constructor(picture, { rows, columns, visible = [0, 0, 1, 1] }) {
    this.canvas = el("canvas", { class: "heat", width: columns, height: rows, "aria-hidden": "true" });
    const [left, top, right, bottom] = visible;
    this.canvas.style.left = `${100 * left}%`;
    this.canvas.style.top = `${100 * top}%`;
    this.canvas.style.width = `${100 * (right - left)}%`;
    this.canvas.style.height = `${100 * (bottom - top)}%`;
    this.element = frame(picture, picture.name, this.canvas);
  }

  /** Draws the shares of a word, `most` hottest; null shows the picture alone. */
  draw(shares, most) {
    this.element.classList.toggle("heated", shares !== null);
    if (shares === null) return;
    const { width, height } = this.canvas;
    const pixels = new ImageData(width, height);
    for (let patch = 0; patch < width * height; patch += 1) {
      pixels.data.set([...colorOf(most > 0 ? (shares[patch] ?? 0) / most : 0), 255], 4 * patch);
    }
    this.canvas.getContext("2d").putImageData(pixels, 0, 0);
  }
}

/** Gives the color of a value from 0 to 1. */
function colorOf(value) {
  const place = Math.min(Math.max(value, 0), 1) * (SCALE.length - 1);
  const below = Math.min(Math.floor(place), SCALE.length - 2);
  return SCALE[below].map((from, part) => Math.round(from + (SCALE[below + 1][part] - from) * (place - below)));
}

/** Makes the legend of the scale, whose end is set later. */
export function heatLegend() {
  const most = el("span", { class: "legend-most", text: percent(1) });
  const element = el(
    "div",
    { class: "legend" },
    el("span", { text: "0 %" }),
    el("span", { class: "legend-bar" }),
    most,
  );
  return { element, setMost: (share) => (most.textContent = `${percent(share)} in one patch`) };
}
