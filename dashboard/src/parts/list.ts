// A list that comes in pages, the newest first. Its first page follows what happens; pages that a
// person asked for stay as they are below it. It never holds more than so many.
import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { get, type Query } from "../api";

const KEPT_MAX = 1_000;
/** Between two readings of the first page, however much happens. */
const AGAIN_MILLIS = 1_000;

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
    const error = useSignal<string | null>(null);
    const loaded = useSignal(false);
    const busy = useSignal(false);
    const asked = useRef<AbortController>(undefined);
    const isDeep = useRef(false);
    const last = useRef(0);

    const load = async (after?: string) => {
        if (!path) return;
        asked.current?.abort();
        const mine = new AbortController();
        asked.current = mine;
        busy.value = true;
        try {
            const page = await get<Record<string, unknown>>(path, { ...query, after }, mine.signal);
            const found = page[key] as T[];
            if (after) {
                rows.value = [...rows.value, ...found].slice(0, KEPT_MAX);
                next.value = page.next as string | null;
                isDeep.current = true;
            } else if (isDeep.current && overlaps(found, rows.value, id)) {
                const fresh = new Set(found.map(id));
                const rest = rows.value.filter((row) => !fresh.has(id(row)));
                rows.value = [...found, ...rest].slice(0, KEPT_MAX);
            } else {
                rows.value = found;
                next.value = page.next as string | null;
                isDeep.current = false;
            }
            error.value = null;
            loaded.value = true;
        } catch (problem) {
            if (!mine.signal.aborted) error.value = (problem as Error).message;
        }
        if (asked.current === mine) {
            busy.value = false;
            last.current = Date.now();
        }
    };

    const wanted = JSON.stringify([path, query]);
    useEffect(() => {
        isDeep.current = false;
        loaded.value = false;
        void load();
        return () => asked.current?.abort();
    }, [wanted]);
    useEffect(() => {
        if (!loaded.peek()) return;
        const wait = Math.max(0, last.current + AGAIN_MILLIS - Date.now());
        const timer = setTimeout(() => !busy.peek() && void load(), wait);
        return () => clearTimeout(timer);
    }, [changed]);

    return {
        rows: rows.value, next: next.value, error: error.value, loaded: loaded.value, busy: busy.value,
        isFull: rows.value.length >= KEPT_MAX,
        more: () => void load(next.value ?? undefined),
        reload: () => void load(),
    };
}

function overlaps<T>(fresh: T[], known: T[], id: (row: T) => string): boolean {
    const ids = new Set(known.map(id));
    return fresh.some((row) => ids.has(id(row)));
}
