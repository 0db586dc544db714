// chart: the loss while it falls.
//
// Owns: the chart (uPlot), its colours, its size, what screen readers are told of it.
// @ts-check

import Plot from "../../vendor/uPlot.esm.js";
import {el} from "../dom.js";

const uPlot = /** @type {any} */ (Plot);

const height = 220;

/** @param {string} name of a colour of base.css, as it is now */
function colour(name) {
    const probe = el("span", {class: `colour-${name}`});
    document.body.append(probe);
    const {color} = getComputedStyle(probe);
    probe.remove();
    return color;
}

export class Chart {
    element = el("div", {class: "chart", role: "img"});
    #plot;
    #colours = {text: "", line: "", accent: "", danger: ""};

    constructor() {
        const axis = {stroke: () => this.#colours.text, font: "12px system-ui, sans-serif",
            grid: {stroke: () => this.#colours.line, width: 1},
            ticks: {stroke: () => this.#colours.line, width: 1}};
        this.#paint();
        this.#plot = new uPlot({
            width: 600, height, legend: {show: false}, cursor: {drag: {x: false, y: false}},
            scales: {x: {time: false}, y: {range: (/** @type {any} */ _, /** @type {number} */ low,
                /** @type {number} */ high) => [Math.min(0, low), (high || 1) * 1.05]}},
            axes: [{...axis, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000]},
                {...axis, size: 44}],
            series: [{}, {stroke: () => this.#colours.accent, width: 2, points: {show: false}},
                {stroke: () => this.#colours.danger, width: 2, spanGaps: true,
                    points: {show: true, size: 7, fill: () => this.#colours.danger}}],
        }, [[], [], []], this.element);
        new ResizeObserver(([{contentRect: {width}}]) => {
            if (width) this.#plot.setSize({width, height});
        }).observe(this.element);
        const repaint = () => {
            this.#paint();
            this.#plot.redraw();
        };
        matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
        new MutationObserver(repaint).observe(document.documentElement,
            {attributeFilter: ["data-theme"]});
    }

    #paint() {
        this.#colours = {text: colour("quiet"), line: colour("line"), accent: colour("accent"),
            danger: colour("danger")};
    }

    /** @param {{step: number, loss: number}[]} steps @param {{step: number, loss: number}[]} evals
     * of the samples held out */
    show(steps, evals) {
        const measured = new Map(evals.map(({step, loss}) => [step, loss]));
        const all = [...new Set([...steps, ...evals].map(({step}) => step))].sort((a, b) => a - b);
        const learned = new Map(steps.map(({step, loss}) => [step, loss]));
        this.#plot.setData([all, all.map((step) => learned.get(step) ?? null),
            all.map((step) => measured.get(step) ?? null)]);
        const [first, last] = [steps[0], steps.at(-1)];
        this.element.setAttribute("aria-label", first && last
            ? `Loss from step ${first.step}, ${first.loss.toFixed(2)}, to step ${last.step}, ` +
                last.loss.toFixed(2) : "Loss: no step was taken yet");
    }
}
