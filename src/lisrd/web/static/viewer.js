// <lisrd-matches>: draws the answer of one pair. Its only input is the JSON inside it; it asks no server for anything.
"use strict";

(() => {
  const STACKED_BELOW = 640; // narrower pages show the photographs one below the other
  const GAP = 12;
  const REACH = 14; // pixels around the pointer in which a match is found

  const percent = (share) => `${Math.round(100 * share)} %`;
  const number = (count) => count.toLocaleString("en");
  const plural = (count, one) => `${number(count)} ${one}${count === 1 ? "" : one.endsWith("match") ? "es" : "s"}`;

  /** An element with properties, attributes (by setAttribute) and children. */
  function make(tag, { attributes = {}, ...properties } = {}, ...children) {
    const element = Object.assign(document.createElement(tag), properties);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children.filter((child) => child !== null));
    return element;
  }

  /** Between two colours, both [r, g, b]. */
  function between(low, high, share) {
    const clipped = Math.min(1, Math.max(0, share));
    const mixed = low.map((value, k) => Math.round(value + clipped * (high[k] - value)));
    return `rgb(${mixed.join(" ")})`;
  }

  function channels(hex) {
    return [1, 3, 5].map((start) => parseInt(hex.slice(start, start + 2), 16));
  }

  const PALE = [226, 232, 240];
  const LOW = [68, 32, 120], HIGH = [250, 220, 60];
  const INLIER = "#14c9a2", OUTLIER = "#ff5a5f";

  /** How a match is coloured: by name of the choice. */
  function colouring(answer, choice) {
    const { matches, invariances } = answer;
    const chosen = matches.weights.map((weights) => weights.indexOf(Math.max(...weights)));
    if (choice === "chosen") return (k) => invariances[chosen[k]].colour;
    if (choice === "inlier") return (k) => (matches.inliers[k] ? INLIER : OUTLIER);
    if (choice === "score") {
      const sorted = [...matches.scores].sort((a, b) => a - b);
      const floor = sorted[Math.floor(sorted.length / 20)] ?? 0;
      const top = sorted.at(-1) ?? 1;
      return (k) => between(LOW, HIGH, (matches.scores[k] - floor) / (top - floor || 1));
    }
    const v = Number(choice);
    const highest = Math.max(...matches.weights.map((weights) => weights[v]), 1e-6);
    return (k) => between(PALE, channels(invariances[v].colour), matches.weights[k][v] / highest);
  }

  /** Where both photographs lie on the stage, in CSS pixels. */
  function arrange(photographs, width) {
    const aspects = photographs.map((one) => one.width / one.height);
    const tallest = Math.max(320, Math.min(620, window.innerHeight * 0.72));
    if (width < STACKED_BELOW) {
      let top = 0;
      const boxes = aspects.map((aspect) => {
        const height = Math.min(width / aspect, tallest);
        const box = { left: (width - height * aspect) / 2, top, width: height * aspect, height };
        top += height + GAP;
        return box;
      });
      return { boxes, height: top - GAP };
    }
    const height = Math.min(tallest, (width - GAP) / (aspects[0] + aspects[1]));
    const left = (width - GAP - height * (aspects[0] + aspects[1])) / 2;
    const first = { left, top: 0, width: height * aspects[0], height };
    return { boxes: [first, { left: left + first.width + GAP, top: 0, width: height * aspects[1], height }], height };
  }

  /** Distance of a point to the segment from a to b. */
  function distance([x, y], [ax, ay], [bx, by]) {
    const [dx, dy] = [bx - ax, by - ay];
    const along = Math.min(1, Math.max(0, ((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy || 1)));
    return Math.hypot(x - ax - along * dx, y - ay - along * dy);
  }

  function save(name, blob) {
    const url = URL.createObjectURL(blob);
    make("a", { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  }

  class Matches extends HTMLElement {
    connectedCallback() {
      const data = this.querySelector("data");
      if (!data || this.shadowRoot) return;
      this.answer = JSON.parse(data.textContent);
      const { answer } = this;
      this.state = {
        kinds: new Set(answer.invariances.keys()),
        which: answer.inliers ? "inliers" : "all",
        colour: "chosen",
        weight: 0,
        tile: null,
        active: null,
        pinned: false,
      };
      const root = this.attachShadow({ mode: "open" });
      root.append(make("style", {}, globalThis.lisrdViewerStyle));
      this.stage = this.buildStage();
      const maps = answer.maps.length && answer.matches.scores.length ? this.buildMaps() : null;
      root.append(this.buildSummary(), this.buildControls(), this.stage, ...(maps ? [maps] : []), this.buildDownloads());
      this.pictures = answer.photographs.map((one) => {
        const picture = make("img", { src: one.url });
        picture.decode().then(() => this.draw(), () => {});
        return picture;
      });
      this.watcher = new ResizeObserver(() => this.draw());
      this.watcher.observe(this);
      this.update();
    }

    disconnectedCallback() {
      this.watcher?.disconnect();
    }

    // --- what was found ---------------------------------------------------------------------------------------

    buildSummary() {
      const { verdict, relation, keypoints, inliers, matches, model, turn, seconds, notes } = this.answer;
      const words = { yes: "The same place", no: "Different places", unsure: "Perhaps the same place" };
      const sure = verdict.answer === "no" ? 1 - verdict.probability : verdict.probability;
      const count = matches.scores.length;
      const total = Object.values(seconds).reduce((sum, one) => sum + one, 0);
      const plain = { homography: "homography", fundamental: "fundamental matrix" }[model.kind];
      const related = verdict.answer === "no" ? null : relation; // the model of different places is chance
      const error = (value) => (value === null ? "" : ` ± ${value.toFixed(2)}`);
      const facts = [
        ["Inliers", `${number(inliers)}`, `of ${plural(count, "match")}`],
        related && ["Turned", `${Math.abs(related.angle).toFixed(1)}°`,
          `${related.angle < 0 ? "counter-clockwise" : "clockwise"}${error(related.angle_error)}`],
        related && ["Scaled", `× ${related.scale.toFixed(2)}`, 
          related.scale_error === null ? "of photograph 1" : `± ${(100 * (related.scale_error - 1)).toFixed(2)} %`],
        ["Keypoints", keypoints.map(number).join(" · "), turn ? `photograph 2 read turned by ${90 * turn}°` : "read upright"],
        ["Time", `${total.toFixed(2)} s`, Object.entries(seconds).map(([name, s]) => `${name} ${s.toFixed(2)}`).join(" · ")],
      ];
      return make("section", { className: "summary" },
        make("div", { className: `verdict ${verdict.answer}` },
          make("strong", {}, words[verdict.answer]),
          make("span", {}, `${percent(sure)} sure, from ${model.matrix ? `a ${plain}` : "no model"}`),
          model.reason ? make("span", {}, model.reason) : null),
        ...facts.filter(Boolean).map(([name, value, more]) =>
          make("div", { className: "fact" }, make("span", {}, name), make("strong", {}, value), make("small", {}, more))),
        ...notes.map((note) => make("p", { className: "note" }, note)));
    }

    // --- filters and colours ----------------------------------------------------------------------------------

    buildControls() {
      const { answer, state } = this;
      const several = answer.invariances.length > 1;
      const chips = answer.invariances.map((one, v) => {
        const chip = make("button", {
          className: "chip", type: "button", title: one.name,
          attributes: { "aria-pressed": "true", style: `--kind: ${one.colour}` },
        }, make("i"), make("span", {}, one.label), make("small", {}, percent(one.share)));
        chip.addEventListener("click", () => {
          state.kinds.has(v) ? state.kinds.delete(v) : state.kinds.add(v);
          chip.setAttribute("aria-pressed", state.kinds.has(v));
          this.update();
        });
        return chip;
      });
      const which = make("div", { className: "segments", attributes: { role: "group", "aria-label": "Which matches" } },
        ...["inliers", "outliers", "all"].map((name) => {
          const button = make("button", { type: "button", attributes: { "aria-pressed": state.which === name } }, name);
          button.dataset.which = name;
          button.addEventListener("click", () => {
            state.which = name;
            for (const other of which.children) other.setAttribute("aria-pressed", other === button);
            this.update();
          });
          return button;
        }));
      const options = [
        ["chosen", "invariance chosen"],
        ...(several ? answer.invariances.map((one, v) => [String(v), `weight: ${one.label}`]) : []),
        ["score", "score"],
        ["inlier", "inlier or not"],
      ];
      const colour = make("select", { name: "colour" }, ...options.map(([value, text]) => make("option", { value }, text)));
      colour.addEventListener("change", () => { state.colour = colour.value; this.update(); });
      const weight = make("input", { type: "range", min: 0, max: 100, value: 0, name: "weight" });
      const shown = make("output", {}, "0 %");
      weight.addEventListener("input", () => {
        state.weight = weight.value / 100;
        shown.value = `${weight.value} %`;
        this.update();
      });
      this.counter = make("output", { className: "counter", attributes: { "aria-live": "polite" } });
      return make("section", { className: "controls" },
        several ? make("div", { className: "chips", attributes: { role: "group", "aria-label": "Invariances" } }, ...chips) : null,
        make("div", { className: "row" },
          which,
          make("label", {}, "colour", colour),
          several ? make("label", {}, "top weight ≥", weight, shown) : null,
          this.counter));
    }

    /** Indices of the matches that pass the filters. */
    filtered() {
      const { matches } = this.answer;
      const { kinds, which, weight, tile } = this.state;
      const kept = [];
      matches.weights.forEach((weights, k) => {
        const top = Math.max(...weights);
        const inlier = matches.inliers[k];
        if (!kinds.has(weights.indexOf(top)) || top < weight) return;
        if (which !== "all" && inlier !== (which === "inliers")) return;
        if (tile && this.tileOf(k, tile.side, tile.perSide) !== tile.index) return;
        kept.push(k);
      });
      return kept;
    }

    tileOf(k, side, perSide) {
      const [x, y] = this.answer.matches[`points${side}`][k];
      const { width, height } = this.answer.photographs[side];
      const cell = (value, length) => Math.min(perSide - 1, Math.max(0, Math.floor(((value + 0.5) * perSide) / length)));
      return cell(y, height) * perSide + cell(x, width);
    }

    update() {
      this.kept = this.filtered();
      this.colourOf = colouring(this.answer, this.state.colour);
      this.setActive(null);
      this.dataset.shown = this.kept.length;
      this.counter.value = `${number(this.kept.length)} of ${plural(this.answer.matches.scores.length, "match")} shown`;
      this.draw();
    }

    // --- the photographs and their matches --------------------------------------------------------------------

    buildStage() {
      this.canvas = make("canvas", { tabIndex: 0, attributes: {
        role: "img", "aria-label": "Both photographs with their matches; arrow keys step through the matches",
      } });
      this.tip = make("div", { className: "tip", hidden: true });
      this.canvas.addEventListener("pointermove", (event) => { if (!this.state.pinned) this.point(event); });
      this.canvas.addEventListener("pointerleave", () => { if (!this.state.pinned) this.setActive(null); });
      this.canvas.addEventListener("click", (event) => { this.point(event); this.state.pinned = this.state.active !== null; });
      this.canvas.addEventListener("keydown", (event) => this.step(event));
      return make("div", { className: "stage" }, this.canvas, this.tip);
    }

    point(event) {
      const { left, top } = this.canvas.getBoundingClientRect();
      const at = [event.clientX - left, event.clientY - top];
      let [nearest, reach] = [null, REACH];
      for (const k of this.kept) {
        const [a, b] = this.ends(k);
        const away = Math.min(Math.hypot(at[0] - a[0], at[1] - a[1]), Math.hypot(at[0] - b[0], at[1] - b[1]),
          distance(at, a, b) + REACH / 2); // ends come before lines that pass by
        if (away < reach) [nearest, reach] = [k, away];
      }
      this.setActive(nearest, at);
    }

    step(event) {
      const direction = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (event.key === "Escape") this.setActive(null);
      if (!direction || !this.kept.length) return;
      event.preventDefault();
      const from = this.kept.indexOf(this.state.active);
      const next = from < 0 ? (direction > 0 ? 0 : this.kept.length - 1) : (from + direction + this.kept.length) % this.kept.length;
      this.setActive(this.kept[next], this.ends(this.kept[next])[1]);
      this.state.pinned = true;
    }

    setActive(match, at) {
      if (match === null) this.state.pinned = false;
      const changed = match !== this.state.active;
      this.state.active = match;
      if (changed && this.layout) this.draw();
      this.tip.hidden = match === null;
      if (match !== null) this.describe(match, at);
    }

    /** The weights, the score and the place of one match, beside the pointer. */
    describe(k, [x, y]) {
      const { matches, invariances } = this.answer;
      const place = (points) => points[k].map((value) => value.toFixed(1)).join(", ");
      this.tip.replaceChildren(
        make("div", { className: "head" },
          make("strong", {}, `score ${matches.scores[k].toFixed(3)}`),
          make("span", { className: matches.inliers[k] ? "in" : "out" }, matches.inliers[k] ? "inlier" : "outlier")),
        ...(invariances.length > 1 ? invariances.map((one, v) => make("div", { className: "bar" },
          make("span", {}, one.label),
          make("i", { attributes: { style: `--kind: ${one.colour}; --share: ${matches.weights[k][v]}` } }),
          make("b", {}, percent(matches.weights[k][v])))) : []),
        make("small", {}, `(${place(matches.points0)}) → (${place(matches.points1)})`));
      const { offsetWidth: width, offsetHeight: height } = this.tip;
      const room = this.stage.clientWidth;
      this.tip.style.left = `${Math.max(0, Math.min(x + 16, room - width))}px`;
      this.tip.style.top = `${y + 18 + height > this.layout.height ? Math.max(0, y - height - 14) : y + 18}px`;
    }

    /** Both ends of a match on the stage; pixel areas scale, and (0, 0) is the centre of the first pixel. */
    ends(k) {
      return [0, 1].map((side) => {
        const [x, y] = this.answer.matches[`points${side}`][k];
        const box = this.layout.boxes[side];
        const { width, height } = this.answer.photographs[side];
        return [box.left + ((x + 0.5) * box.width) / width, box.top + ((y + 0.5) * box.height) / height];
      });
    }

    draw() {
      const width = this.stage.clientWidth;
      if (!width) return;
      this.layout = arrange(this.answer.photographs, width);
      const { boxes, height } = this.layout;
      const density = window.devicePixelRatio || 1;
      this.canvas.width = Math.round(width * density);
      this.canvas.height = Math.round(height * density);
      this.canvas.style.height = `${height}px`;
      const pen = this.canvas.getContext("2d");
      pen.scale(density, density);
      boxes.forEach((box, side) => this.drawPhotograph(pen, box, side));
      const { active } = this.state;
      const dim = active === null ? 1 : 0.25;
      // The more lines, the fainter each: the photographs stay visible under two thousand of them.
      const strength = dim * Math.min(0.95, Math.max(0.22, 9 / Math.sqrt(this.kept.length + 1)));
      for (const k of this.kept) this.drawLine(pen, k, strength, 1.1);
      for (const k of this.kept) this.drawEnds(pen, k, dim * 0.95, 2.1);
      if (active !== null) {
        this.drawLine(pen, active, 1, 5, "rgb(255 255 255 / .85)");
        this.drawLine(pen, active, 1, 2.4);
        this.drawEnds(pen, active, 1, 5);
      }
    }

    drawPhotograph(pen, box, side) {
      const picture = this.pictures?.[side];
      if (picture?.complete && picture.naturalWidth) {
        pen.filter = "saturate(.55)"; // the colours of the lines stand out
        pen.drawImage(picture, box.left, box.top, box.width, box.height);
        pen.filter = "none";
      }
      const perSide = this.answer.maps[side]?.[0]?.length ?? 0;
      pen.strokeStyle = "rgb(255 255 255 / .3)";
      pen.lineWidth = 1;
      for (let k = 1; k < perSide; k++) {
        const [x, y] = [box.left + (k * box.width) / perSide, box.top + (k * box.height) / perSide];
        pen.strokeRect(x, box.top, 0, box.height);
        pen.strokeRect(box.left, y, box.width, 0);
      }
    }

    drawLine(pen, k, strength, width, colour = this.colourOf(k)) {
      const [a, b] = this.ends(k);
      pen.globalAlpha = strength;
      pen.strokeStyle = colour;
      pen.lineWidth = width;
      pen.beginPath();
      pen.moveTo(...a);
      pen.lineTo(...b);
      pen.stroke();
      pen.globalAlpha = 1;
    }

    drawEnds(pen, k, strength, radius) {
      pen.globalAlpha = strength;
      pen.fillStyle = this.colourOf(k);
      pen.strokeStyle = "rgb(15 23 42 / .75)";
      pen.lineWidth = 0.8;
      for (const [x, y] of this.ends(k)) {
        pen.beginPath();
        pen.arc(x, y, radius, 0, 2 * Math.PI);
        pen.fill();
        pen.stroke();
      }
      pen.globalAlpha = 1;
    }

    // --- the weights of the tiles -----------------------------------------------------------------------------

    buildMaps() {
      const { maps, invariances } = this.answer;
      const highest = Math.max(...maps.flat(3).filter((value) => value !== null), 1e-6);
      this.tiles = [];
      const rows = maps.map((kinds, side) => make("div", { className: "maps-of" },
        make("h3", {}, `Photograph ${side + 1}`),
        make("div", { className: "grids" }, ...kinds.map((map, v) => make("figure", {},
          make("div", { className: "grid", attributes: { style: `--per-side: ${map.length}; --kind: ${invariances[v].colour}` } },
            ...map.flat().map((value, index) => this.buildTile(value, highest, side, index, map.length, invariances[v]))),
          make("figcaption", {}, invariances[v].label))))));
      return make("section", { className: "maps" },
        make("header", {}, make("h2", {}, "Which region used which invariance"),
          make("p", {}, "Mean weight of the matches in each tile, per cent. Click a tile to see its matches alone.")),
        make("div", { className: "both" }, ...rows));
    }

    buildTile(value, highest, side, index, perSide, invariance) {
      const place = `row ${Math.floor(index / perSide) + 1}, column ${(index % perSide) + 1}`;
      const said = value === null ? "no matches" : percent(value);
      const tile = make("button", { type: "button", disabled: value === null, attributes: {
        style: `--depth: ${value === null ? 0 : value / highest}`,
        "aria-label": `${invariance.label}, ${place}: ${said}`, "aria-pressed": "false",
      } }, value === null ? "–" : String(Math.round(100 * value)));
      tile.addEventListener("click", () => this.chooseTile(tile, { side, index, perSide }));
      this.tiles.push({ tile, side, index });
      return tile;
    }

    chooseTile(tile, place) {
      const again = tile.getAttribute("aria-pressed") === "true";
      this.state.tile = again ? null : place;
      for (const one of this.tiles) {
        one.tile.setAttribute("aria-pressed", !again && one.side === place.side && one.index === place.index);
      }
      this.update();
    }

    // --- to take away -----------------------------------------------------------------------------------------

    buildDownloads() {
      const button = (text, name, action) => {
        const made = make("button", { type: "button", className: "download" }, text);
        made.dataset.download = name;
        made.addEventListener("click", action);
        return made;
      };
      return make("footer", {},
        make("span", {}, "Download"),
        button("matches.npz", "npz", () => save("matches.npz", new Blob([this.npz()], { type: "application/octet-stream" }))),
        button("matches.json", "json", () => save("matches.json", new Blob([this.json()], { type: "application/json" }))),
        button("picture.png", "png", () => this.canvas.toBlob((blob) => save("matches.png", blob))));
    }

    npz() {
      return Uint8Array.from(atob(this.answer.npz), (character) => character.charCodeAt(0));
    }

    /** The answer without what is there to be looked at. */
    json() {
      const { npz, photographs, ...rest } = this.answer;
      const sizes = photographs.map(({ width, height }) => ({ width, height }));
      return JSON.stringify({ ...rest, photographs: sizes });
    }
  }

  if (!customElements.get("lisrd-matches")) customElements.define("lisrd-matches", Matches);
})();
