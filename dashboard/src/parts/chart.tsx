// A line chart over time. It follows the theme and the width of its place.
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import { theme } from "../theme";

export interface Line {
    label: string;
    /** The name of a colour of the style sheet. */
    color: string;
    values: (number | null)[];
    filled?: boolean;
}

export interface ChartProps {
    title: string;
    /** Seconds since 1970. */
    times: number[];
    lines: Line[];
    show: (value: number) => string;
    height?: number;
}

const FONT = "11px Inter, system-ui, sans-serif";

/** Pixels of a time under a chart: the last one stands half beyond its end. */
const TIME_WIDTH = 48;

const SPARSE_SHARE = 0.4;

function isSparse(values: (number | null)[]): boolean {
    return values.filter((value) => value !== null).length < values.length * SPARSE_SHARE;
}

function color(name: string, share = 1): string {
    const value = getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
    if (share === 1) return value;
    const part = (at: number) => parseInt(value.slice(at, at + 2), 16);
    return `rgba(${part(1)}, ${part(3)}, ${part(5)}, ${share})`;
}

function options(props: ChartProps, width: number): uPlot.Options {
    const axis: uPlot.Axis = {
        stroke: color("muted"), font: FONT, ticks: { show: false },
        grid: { stroke: color("line"), width: 1 },
    };
    return {
        width, height: props.height ?? 150, padding: [10, TIME_WIDTH / 2, 0, 0],
        legend: { show: false },
        cursor: { y: false, points: { size: 6 }, drag: { x: false, y: false }, sync: { key: "time" } },
        scales: { y: { range: (_, __, most) => [0, Math.max(most ?? 0, 1) * 1.12] } },
        axes: [
            { ...axis, grid: { show: false }, space: 70, size: 26, values: (_, ticks, __, ___, step) => ticks.map((tick) => moment(tick, step < 60)) },
            { ...axis, size: 54, space: 34, values: (_, ticks) => ticks.map((tick) => props.show(tick)) },
        ],
        series: [
            {},
            ...props.lines.map((line): uPlot.Series => ({
                label: line.label, stroke: color(line.color), width: 1.5,
                // A value between gaps has no line to be seen by.
                points: { show: isSparse(line.values), size: 4, width: 0, fill: color(line.color) },
                spanGaps: false, ...(line.filled ? { fill: color(line.color, 0.1) } : {}),
            })),
        ],
    };
}

function moment(seconds: number, isExact: boolean): string {
    const at = new Date(seconds * 1_000);
    const two = (value: number) => String(value).padStart(2, "0");
    const minute = `${two(at.getHours())}:${two(at.getMinutes())}`;
    return isExact ? `${minute}:${two(at.getSeconds())}` : minute;
}

function data(props: ChartProps): uPlot.AlignedData {
    return [props.times, ...props.lines.map((line) => line.values)] as uPlot.AlignedData;
}

export function Chart(props: ChartProps) {
    const place = useRef<HTMLDivElement>(null);
    const plot = useRef<uPlot | null>(null);
    const shape = props.lines.map((line) => `${line.label} ${isSparse(line.values)}`).join();
    const look = theme.value;
    useEffect(() => {
        const element = place.current!;
        plot.current = new uPlot(options(props, element.clientWidth), data(props), element);
        const watched = new ResizeObserver(() => {
            plot.current?.setSize({ width: element.clientWidth, height: props.height ?? 150 });
        });
        watched.observe(element);
        return () => {
            watched.disconnect();
            plot.current?.destroy();
        };
    }, [shape, look]);
    useEffect(() => plot.current?.setData(data(props)), [props.times, props.lines]);
    const latest = (line: Line) => line.values.findLast((value) => value !== null && value !== undefined);
    const said = props.lines.map((line) => `${line.label} ${latest(line) === undefined ? "none" : props.show(latest(line)!)}`);
    return (
        <figure class="chart">
            <figcaption>
                <h3>{props.title}</h3>
                <ul>
                    {props.lines.map((line) => (
                        <li key={line.label}>
                            <i class={`key ${line.color}`} />{line.label}
                            <b>{latest(line) === undefined ? "–" : props.show(latest(line)!)}</b>
                        </li>
                    ))}
                </ul>
            </figcaption>
            <div ref={place} role="img" aria-label={`${props.title}, now: ${said.join(", ")}`} />
        </figure>
    );
}
