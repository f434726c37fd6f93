// The live state of the page: what the stream tells, kept within bounds, and the stream itself. It
// comes back by itself after the program restarted or the machine slept, from where it was.
import { batch, computed, signal } from "@preact/signals";
import { get, stream } from "./api";
import type { Entry, Overview } from "./types";

const ENTRIES_MAX = 300;
const POINTS_MAX = 900;
const ENTRIES_A_SECOND = 40;
/** Samples come every two seconds: this long without one, the connection is gone. */
const SILENCE_MILLIS = 12_000;
const AGAIN_MILLIS = [500, 1_000, 2_000, 4_000];
/** A window that nobody looks at gives its connection back. */
const HIDDEN_MILLIS = 20_000;

export type Point = (number | null)[];

export const connection = signal<"connecting" | "live" | "lost">("connecting");
export const overview = signal<Overview | null>(null);
export const entries = signal<Entry[]>([]);
export const leftOut = signal(0);
export const points = signal<Point[]>([]);
export const columns = signal<string[]>([]);
export const now = signal(Date.now());
/** Changes once a day, so that what only shows a time is not drawn each second. */
export const today = computed(() => new Date(now.value).toDateString());
/** Grows with each entry about a message or a task, and when some were left out. */
export const changes = signal({ message: 0, task: 0, agent: 0 });

let source: EventSource | null = null;
let last: string | null = null;
let journal: string | null = null;
let version: string | null = null;
let heard = 0;
let failures = 0;
let again: number | undefined;
let hidden: number | undefined;

export function start(): void {
    setInterval(() => (now.value = Date.now()), 1_000);
    setInterval(watch, 2_000);
    document.addEventListener("visibilitychange", () => {
        clearTimeout(hidden);
        if (document.hidden) hidden = setTimeout(close, HIDDEN_MILLIS);
        else if (!source) void open();
    });
    void open();
}

/** Loads what there is, then listens from there on. */
async function open(): Promise<void> {
    clearTimeout(again);
    close();
    try {
        const [seen, past] = await Promise.all([
            get<Overview>("/api/overview"),
            get<{ columns: string[]; points: Point[] }>("/api/series"),
        ]);
        const route = seen.routes.audit;
        const audit = route && last === null
            ? await get<{ entries: Entry[] }>(route, { limit: 60 })
            : null;
        batch(() => {
            overview.value = seen;
            columns.value = past.columns;
            points.value = joined(points.value, past.points);
            if (audit) entries.value = audit.entries;
            touch("all");
        });
        last ??= audit?.entries[0]?.seq ?? null;
        listen();
    } catch {
        lose();
    }
}

/** What a person just changed is shown at once. */
export async function refresh(): Promise<void> {
    overview.value = await get<Overview>("/api/overview");
}

/** After a restart the program has a short past; what the page saw before stays. */
function joined(known: Point[], past: Point[]): Point[] {
    const begin = past[0]?.[0] ?? Infinity;
    return [...known.filter((point) => point[0]! < begin!), ...past].slice(-POINTS_MAX);
}

function listen(): void {
    close();
    const opened = stream("/api/events", { after: last ?? undefined, rate: ENTRIES_A_SECOND });
    source = opened;
    heard = Date.now();
    const on = (name: string, hear: (data: never) => void) => {
        opened.addEventListener(name, (event) => {
            heard = Date.now();
            if (event.lastEventId) last = event.lastEventId;
            hear(JSON.parse(event.data) as never);
        });
    };
    on("hello", greeted);
    on("entry", took);
    on("sample", (point: Point) => {
        points.value = [...points.value, point].slice(-POINTS_MAX);
    });
    on("overview", (seen: Overview) => (overview.value = seen));
    on("skipped", ({ entries: count, frames }: { entries: number; frames: number }) => {
        leftOut.value += count + frames;
        touch("all");
    });
    opened.onerror = () => {
        if (source === opened) lose();
    };
}

function greeted(hello: { journal: string; version: string }): void {
    // Another program is another page.
    if (version !== null && version !== hello.version) location.reload();
    // Another journal has nothing to do with what was seen.
    if (journal !== null && journal !== hello.journal) location.reload();
    ({ journal, version } = hello);
    failures = 0;
    connection.value = "live";
}

let waiting: Entry[] = [];
let drawn = 0;

/** Many entries at once are one drawing. */
function took(entry: Entry): void {
    waiting.push(entry);
    if (waiting.length > 1) return;
    drawn = requestAnimationFrame(flush);
    if (document.hidden) {
        cancelAnimationFrame(drawn);
        flush();
    }
}

function flush(): void {
    const came = waiting.reverse();
    waiting = [];
    batch(() => {
        entries.value = [...came, ...entries.value].slice(0, ENTRIES_MAX);
        for (const entry of came) touch(entry.event);
    });
}

function touch(event: string): void {
    const group = event.split(".")[0];
    const { message, task, agent } = changes.peek();
    const is = (name: string) => Number(group === name || group === "all");
    changes.value = {
        message: message + is("message"),
        task: task + is("task"),
        agent: agent + is("openclaw") + Number(group === "task" || group === "all"),
    };
}

function close(): void {
    source?.close();
    source = null;
}

function lose(): void {
    close();
    connection.value = "lost";
    clearTimeout(again);
    const wait = AGAIN_MILLIS[Math.min(failures, AGAIN_MILLIS.length - 1)];
    failures += 1;
    again = setTimeout(() => void open(), wait);
}

/** A connection that died without a word, as after sleep. */
function watch(): void {
    if (source && Date.now() - heard > SILENCE_MILLIS) lose();
}
