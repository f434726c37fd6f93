// The audit log: what happens now on top, and as far back as somebody asks.
import { useSignal } from "@preact/signals";
import { Component } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { get, Problem, stream, type Query } from "../api";
import { shortId } from "../format";
import { overview } from "../live";
import { Empty, Panel, Select, Status, Text, Time, tone } from "../parts/bits";
import { href, refine, route } from "../router";
import type { Entry } from "../types";

const KEPT_MAX = 1_000;
const PAGE = 100;
const ENTRIES_A_SECOND = 40;
const AGAIN_MILLIS = 2_000;
const DRAW_MILLIS = 100;
const EVENTS: [string, string][] = [
    ["", "all events"], ["message.*", "messages"], ["message.failed", "messages given up"], ["message.retry", "attempts that failed"],
    ["task.*", "tasks"], ["openclaw.*", "sessions of agents"], ["state.*", "shared state"], ["session.*", "starts and stops"],
    ["auth.*", "tokens"], ["permission.denied", "refused"], ["store.*", "the store"], ["store.damage", "damage"],
];
const LEVELS: [string, string][] = [["", "all levels"], ["info", "info and above"], ["warning", "warnings and errors"], ["error", "errors"]];

export function Audit() {
    const { query } = route.value;
    const asked: Query = {};
    for (const name of ["event", "level", "actor", "resource"]) asked[name] = query.get(name) ?? "";
    const set = (name: string) => (value: string) => refine({ [name]: value });
    const log = useLog(overview.value?.routes.audit, asked);
    return (
        <Panel
            title="Audit log"
            class="tall"
            note={<>
                {log.leftOut > 0 && <span title="They are in the log: load it again to read them.">{log.leftOut} left out</span>}
                <button type="button" data-pause aria-pressed={log.isPaused} onClick={log.pause}>{log.isPaused ? `Go on${log.held ? ` (${log.held})` : ""}` : "Pause"}</button>
            </>}
        >
            <form class="filters" onSubmit={(event) => event.preventDefault()}>
                <Select label="Event" value={String(asked.event)} options={EVENTS} set={set("event")} />
                <Select label="Level" value={String(asked.level)} options={LEVELS} set={set("level")} />
                <Text label="Actor" value={String(asked.actor)} set={set("actor")} />
                <Text label="About" value={String(asked.resource)} set={set("resource")} search />
            </form>
            {log.error && <p class="bad" role="alert">{log.error}</p>}
            {log.loaded && log.entries.length === 0 && <Empty>Nothing of this kind is recorded.</Empty>}
            <Lines entries={log.entries} isLive />
            {log.next && (log.entries.length < KEPT_MAX
                ? <button type="button" class="more" onClick={log.more}>Older entries</button>
                : <p class="note">The page keeps {KEPT_MAX} entries; narrow the filters to see older ones.</p>)}
        </Panel>
    );
}

/** The newest page of the log, what is recorded from then on, and older pages on demand. */
function useLog(path: string | undefined, asked: Query) {
    const entries = useSignal<Entry[]>([]);
    const next = useSignal<string | null>(null);
    const error = useSignal<string | null>(null);
    const loaded = useSignal(false);
    const leftOut = useSignal(0);
    const isPaused = useSignal(false);
    const held = useRef<Entry[]>([]);
    const count = useSignal(0);
    const wanted = JSON.stringify([path, asked]);
    useEffect(() => {
        if (!path) return;
        const mine = new AbortController();
        let source: EventSource | undefined;
        let again: number | undefined;
        let last: string | undefined;
        let draws: number | undefined;
        let waiting: Entry[] = [];
        /** Many entries at once are one drawing. */
        const flush = () => {
            const came = waiting.reverse();
            waiting = [];
            if (isPaused.peek()) {
                held.current = [...came, ...held.current].slice(0, KEPT_MAX);
                count.value = held.current.length;
            } else {
                entries.value = [...came, ...entries.peek()].slice(0, KEPT_MAX);
            }
        };
        const add = (entry: Entry) => {
            waiting.push(entry);
            if (waiting.length === 1) draws = setTimeout(flush, DRAW_MILLIS);
        };
        const listen = () => {
            const opened = (source = stream("/api/events", { ...asked, after: last, rate: ENTRIES_A_SECOND }));
            for (const name of ["hello", "sample", "entry"]) {
                opened.addEventListener(name, (event) => (last = event.lastEventId || last));
            }
            opened.addEventListener("entry", (event) => add(JSON.parse(event.data) as Entry));
            opened.addEventListener("skipped", (event) => (leftOut.value += (JSON.parse(event.data) as { entries: number }).entries));
            opened.onerror = () => {
                opened.close();
                again = setTimeout(listen, AGAIN_MILLIS);
            };
        };
        const begin = async () => {
            try {
                const page = await get<{ entries: Entry[]; next: string | null }>(path, { ...asked, limit: PAGE }, mine.signal);
                entries.value = page.entries;
                next.value = page.next;
                error.value = null;
                loaded.value = true;
                leftOut.value = 0;
                held.current = [];
                count.value = 0;
                waiting = [];
                last = page.entries[0]?.seq;
                listen();
            } catch (problem) {
                if (mine.signal.aborted) return;
                error.value = (problem as Error).message;
                // A program that went away just now comes back.
                const isRefused = problem instanceof Problem && problem.status < 500;
                if (!isRefused) again = setTimeout(() => void begin(), AGAIN_MILLIS);
            }
        };
        void begin();
        return () => {
            mine.abort();
            clearTimeout(again);
            clearTimeout(draws);
            source?.close();
        };
    }, [wanted]);
    return {
        entries: entries.value, next: next.value, error: error.value, loaded: loaded.value,
        leftOut: leftOut.value, isPaused: isPaused.value, held: count.value,
        pause: () => {
            isPaused.value = !isPaused.value;
            if (isPaused.value) return;
            entries.value = [...held.current, ...entries.value].slice(0, KEPT_MAX);
            held.current = [];
            count.value = 0;
        },
        more: async () => {
            try {
                const page = await get<{ entries: Entry[]; next: string | null }>(path!, { ...asked, limit: PAGE, after: entries.value.at(-1)?.seq });
                entries.value = [...entries.value, ...page.entries].slice(0, KEPT_MAX);
                next.value = page.next;
                error.value = null;
            } catch (problem) {
                error.value = (problem as Error).message;
            }
        },
    };
}

export function Lines({ entries, isLive }: { entries: Entry[]; isLive?: boolean }) {
    return (
        <ol class="lines" aria-label={isLive ? "Audit entries" : "Latest entries"}>
            {entries.map((entry) => <Line key={entry.seq} entry={entry} />)}
        </ol>
    );
}

/** An entry never changes: what is drawn of it stays, however many come above it. */
class Line extends Component<{ entry: Entry }> {
    override shouldComponentUpdate() {
        return false;
    }

    override render({ entry }: { entry: Entry }) {
        return (
            <li class={entry.level} data-seq={entry.seq}>
                <Time at={entry.timestamp} />
                <span class={`event ${tone(entry.level)}`}><i class={toneOf(entry)} />{entry.event}</span>
                <About entry={entry} />
                <span class="actor" title="who did it">{entry.actor}</span>
                <span class="details">
                    {(entry.level === "warning" || entry.level === "error") && <Status of={entry.level} />} {text(entry.details)}
                </span>
            </li>
        );
    }
}

function toneOf({ event, level }: Entry): string {
    if (level === "error") return "bad";
    if (level === "warning") return "wait";
    return /\.(delivered|complete|processed)$/.test(event) ? "good" : /\.(queued|sent|start|accept|offer|update|create|received)$/.test(event) ? "busy" : "dim";
}

function About({ entry }: { entry: Entry }) {
    const group = entry.event.split(".")[0];
    const routes = overview.value?.routes;
    const view = group === "message" ? "messages" : group === "task" && routes?.tasks ? "tasks" : null;
    const name = <span class="id" title={entry.resource}>{shortId(entry.resource)}</span>;
    return view && entry.resource ? <a href={href(view, entry.resource)}>{name}</a> : name;
}

function text(details: Record<string, unknown> | null): string {
    if (!details) return "";
    return Object.entries(details)
        .filter(([, value]) => value !== null && value !== undefined && value !== "" && value !== 0 && value !== false)
        .map(([name, value]) => `${name.replaceAll("_", " ")} ${typeof value === "object" ? JSON.stringify(value) : String(value)}`)
        .join(", ");
}
