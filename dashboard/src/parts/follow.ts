// Reading again what changed: at once, then with a pause between, and never without the last change.
import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";

/** Between two readings of one thing, however much happens to it. */
const PAUSE_MILLIS = 1_000;
/** And so many times as long as a reading took, so that what is large costs no more of the time than what is small. */
const REST_FACTOR = 20;
const REST_MILLIS_MAX = 60_000;

type Read = (signal: AbortSignal) => Promise<void>;

class Follower {
    #timer: number | undefined;
    #busy = false;
    #missed = false;
    #last = 0;
    #rest = 0;
    readonly #mine = new AbortController();

    constructor(readonly read: Read, readonly fail: (detail: string | null) => void, readonly pause: number) {}

    ask(): void {
        if (this.#busy) this.#missed = true;
        else this.#timer ??= setTimeout(() => void this.#run(), Math.max(0, this.#last + Math.max(this.pause, this.#rest) - Date.now()));
    }

    end(): void {
        clearTimeout(this.#timer);
        this.#mine.abort();
    }

    async #run(): Promise<void> {
        [this.#timer, this.#busy] = [undefined, true];
        let detail: string | null = null;
        const begun = Date.now();
        try {
            await this.read(this.#mine.signal);
        } catch (problem) {
            detail = (problem as Error).message;
        }
        if (this.#mine.signal.aborted) return;
        this.fail(detail);
        [this.#busy, this.#last] = [false, Date.now()];
        this.#rest = Math.min((this.#last - begun) * REST_FACTOR, REST_MILLIS_MAX);
        if (this.#missed) {
            this.#missed = false;
            this.ask();
        }
    }
}

/**
 * Reads what `key` names, and again after each change of `changed`; nothing without a key. Returns
 * what went wrong the last time, or null.
 */
export function useFollow(key: string | undefined, changed: unknown, read: Read, pause = PAUSE_MILLIS): string | null {
    const error = useSignal<string | null>(null);
    const newest = useRef(read);
    newest.current = read;
    const follower = useRef<Follower>(undefined);
    useEffect(() => {
        if (!key) return;
        const mine = new Follower((signal) => newest.current(signal), (detail) => (error.value = detail), pause);
        follower.current = mine;
        mine.ask();
        return () => mine.end();
    }, [key, pause]);
    useEffect(() => follower.current?.ask(), [changed]);
    return error.value;
}
