// A list that comes in pages, the newest first. Its first page follows what happens; pages that a
// person asked for stay as they are below it. It never holds more than so many.
import { useSignal } from "@preact/signals";
import { useRef } from "preact/hooks";
import { get, type Query } from "../api";
import { useFollow } from "./follow";

const KEPT_MAX = 1_000;

export interface List<T> {
    rows: T[];
    next: string | null;
    error: string | null;
    loaded: boolean;
    busy: boolean;
    isFull: boolean;
    more: () => void;
    reload: () => void;
}

export function useList<T>(
    path: string | undefined,
    query: Query,
    key: string,
    id: (row: T) => string,
    changed: number,
): List<T> {
    const rows = useSignal<T[]>([]);
    const next = useSignal<string | null>(null);
    /** The list that was read, and the one of which older pages were read. */
    const loaded = useSignal<string | null>(null);
    const busy = useSignal(false);
    const deep = useRef<string | null>(null);
    /** One page is read at a time. */
    const turn = useRef<Promise<unknown>>(Promise.resolve());

    const take = (page: Record<string, unknown>, isOlder: boolean) => {
        const found = page[key] as T[];
        if (isOlder) {
            rows.value = [...rows.value, ...found].slice(0, KEPT_MAX);
            deep.current = wanted;
        } else if (deep.current === wanted && overlaps(found, rows.value, id)) {
            const fresh = new Set(found.map(id));
            // What stood before the last of these and is not among them does not belong here any more.
            const end = rows.value.reduce((last, row, at) => (fresh.has(id(row)) ? at : last), -1);
            const rest = rows.value.filter((row, at) => at > end && !fresh.has(id(row)));
            rows.value = [...found, ...rest].slice(0, KEPT_MAX);
            return;
        } else {
            rows.value = found;
            deep.current = null;
        }
        next.value = page.next as string | null;
    };
    const load = (signal?: AbortSignal, after?: string) => {
        const mine = turn.current.then(async () => {
            busy.value = true;
            try {
                const page = await get<Record<string, unknown>>(path!, { ...query, after }, signal);
                // Another list is asked for by now.
                if (wanted !== newest.current) return;
                take(page, after !== undefined);
                loaded.value = wanted;
            } finally {
                busy.value = false;
            }
        });
        turn.current = mine.catch(() => {});
        return mine;
    };

    const wanted = JSON.stringify([path, query]);
    const newest = useRef(wanted);
    newest.current = wanted;
    const failed = useFollow(path && wanted, changed, (signal) => load(signal));
    const error = useSignal<string | null>(null);
    const again = (after?: string) => {
        const show = (problem: Error) => (error.value = problem.message);
        load(undefined, after).then(() => (error.value = null), show);
    };

    return {
        rows: rows.value, next: next.value, error: failed ?? error.value, loaded: loaded.value === wanted, busy: busy.value,
        isFull: rows.value.length >= KEPT_MAX,
        more: () => next.value && again(next.value),
        reload: () => again(),
    };
}

function overlaps<T>(fresh: T[], known: T[], id: (row: T) => string): boolean {
    const ids = new Set(known.map(id));
    return fresh.some((row) => ids.has(id(row)));
}
