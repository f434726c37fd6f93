// Numbers and times for people: short, and always of the same width where they stand in columns.

const integer = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

export function count(value: number): string {
    return Math.abs(value) < 100_000 ? integer.format(value) : compact.format(value);
}

export function exact(value: number): string {
    return integer.format(value);
}

export function rate(value: number): string {
    if (value === 0) return "0";
    return value < 10 ? value.toFixed(1) : count(value);
}

export function bytes(value: number): string {
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = 0;
    while (value >= 1024 && unit < units.length - 1) {
        value /= 1024;
        unit += 1;
    }
    return `${value < 10 && unit > 0 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

/** A length of time, by its two largest units. */
export function duration(seconds: number): string {
    if (seconds < 0) seconds = 0;
    if (seconds < 60) return `${Math.floor(seconds)} s`;
    const parts: [number, string][] = [[86_400, "d"], [3_600, "h"], [60, "min"]];
    const at = parts.findIndex(([size]) => seconds >= size);
    const [size, unit] = parts[at]!;
    const whole = Math.floor(seconds / size);
    const next = parts[at + 1];
    const rest = next ? Math.floor((seconds - whole * size) / next[0]) : 0;
    return next && rest > 0 ? `${whole} ${unit} ${rest} ${next[1]}` : `${whole} ${unit}`;
}

export function millis(value: number): string {
    if (value < 1_000) return `${Math.round(value)} ms`;
    return value < 60_000 ? `${(value / 1_000).toFixed(1)} s` : duration(value / 1_000);
}

export function since(time: string | number | null | undefined, now: number): string {
    if (time === null || time === undefined) return "–";
    const at = typeof time === "number" ? time : Date.parse(time);
    return duration((now - at) / 1_000);
}

const clockFormat = new Intl.DateTimeFormat("en-GB", {
    hour: "2-digit", minute: "2-digit", second: "2-digit",
});
const dayFormat = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

/** The time of day, with the day when it is another one than `today`. */
export function clock(time: string | number, today: string): string {
    const at = new Date(time);
    return today === at.toDateString() ? clockFormat.format(at) : `${dayFormat.format(at)}, ${clockFormat.format(at)}`;
}

export function full(time: string | number): string {
    return new Date(time).toISOString();
}

/** The part of an id that people tell apart: our ids begin with their time. */
export function shortId(id: string): string {
    return /^[0-9a-f]{8}-[0-9a-f]{4}-7/.test(id) ? `…${id.slice(-8)}` : id.length > 28 ? `${id.slice(0, 12)}…${id.slice(-12)}` : id;
}

export function words(text: string): string {
    return text.replaceAll("_", " ");
}
