// Small things that every view uses.
import { useComputed, useSignal } from "@preact/signals";
import type { ComponentChildren, TargetedEvent } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { clock, full, since } from "../format";
import { now, today } from "../live";

/** What a status means for an operator: the word says it, the colour only repeats it. */
const TONES: Record<string, string> = {
    delivered: "good", processed: "good", completed: "good", online: "good", connected: "good",
    pending: "wait", sending: "busy", held: "wait", paused: "wait", received: "busy", offered: "wait",
    accepted: "busy", in_progress: "busy", input_required: "wait", lost: "bad",
    failed: "bad", rejected: "bad", error: "bad", disconnected: "bad", open: "bad",
    warning: "wait", expired: "dim", cancelled: "dim", offline: "dim", debug: "dim", info: "dim",
};

export function tone(word: string): string {
    return TONES[word] ?? "dim";
}

export function Status({ of: word }: { of: string }) {
    return <span class={`status ${tone(word)}`}>{word.replaceAll("_", " ")}</span>;
}

/** A moment as the time of day; the whole of it on pointing. */
export function Time({ at }: { at: string | number | null | undefined }) {
    if (at === null || at === undefined) return <span class="dim">–</span>;
    return <time dateTime={full(at)} title={full(at)}>{clock(at, today.value)}</time>;
}

export function Ago({ at }: { at: string | number | null | undefined }) {
    const text = useComputed(() => since(at, now.value));
    return <span title={at ? full(at) : undefined}>{text}</span>;
}

export function Id({ of: id }: { of: string }) {
    return <span class="id" title={id}>{id}</span>;
}

export function Empty({ children }: { children: ComponentChildren }) {
    return <p class="empty">{children}</p>;
}

export function Panel(props: { title: string; note?: ComponentChildren; children: ComponentChildren; class?: string }) {
    return (
        <section class={`panel ${props.class ?? ""}`}>
            <header><h2>{props.title}</h2>{props.note && <div class="note">{props.note}</div>}</header>
            {props.children}
        </section>
    );
}

/** A choice among a few, as one row of buttons. */
export function Choice(props: { label: string; value: string; options: [string, string][]; set: (value: string) => void }) {
    return (
        <div class="choice" role="group" aria-label={props.label}>
            {props.options.map(([value, text]) => (
                <button key={value} type="button" aria-pressed={value === props.value} onClick={() => props.set(value)}>{text}</button>
            ))}
        </div>
    );
}

export function Select(props: { label: string; value: string; options: [string, string][]; set: (value: string) => void }) {
    return (
        <label class="field"><span>{props.label}</span>
            <select value={props.value} onChange={(event) => props.set(event.currentTarget.value)}>
                {props.options.map(([value, text]) => <option key={value} value={value}>{text}</option>)}
            </select>
        </label>
    );
}

/** A text that takes effect a moment after the last letter. */
export function Text(props: { label: string; value: string; set: (value: string) => void; search?: boolean }) {
    const timer = useRef<number>(undefined);
    // What is typed stays, however often the page is drawn meanwhile.
    const typed = useSignal<string | null>(null);
    const set = (event: TargetedEvent<HTMLInputElement>) => {
        typed.value = event.currentTarget.value;
        clearTimeout(timer.current);
        timer.current = setTimeout(() => {
            const value = (typed.peek() ?? "").trim();
            typed.value = null;
            props.set(value);
        }, 300);
    };
    useEffect(() => () => clearTimeout(timer.current), []);
    return (
        <label class="field"><span>{props.label}</span>
            <input type="search" value={typed.value ?? props.value} onInput={set} spellcheck={false} autocomplete="off" data-search={props.search || undefined} />
        </label>
    );
}

/** A change that is asked about once more before it is made, and says how it went. */
export function Action(props: { label: string; sure?: string; tone?: string; run: () => Promise<string | void>; disabled?: boolean }) {
    const state = useSignal<"idle" | "asked" | "busy">("idle");
    const said = useSignal("");
    const failed = useSignal(false);
    const act = async () => {
        if (props.sure && state.value === "idle") {
            state.value = "asked";
            return;
        }
        state.value = "busy";
        try {
            said.value = (await props.run()) ?? "";
            failed.value = false;
        } catch (error) {
            said.value = error instanceof Error ? error.message : String(error);
            failed.value = true;
        }
        state.value = "idle";
    };
    return (
        <span class="action">
            {state.value === "asked" ? (
                <span class="asked" role="alertdialog" aria-label={props.sure}>
                    <span>{props.sure}</span>
                    <button type="button" class={props.tone ?? "primary"} onClick={act} ref={(button) => button?.focus()}>Yes</button>
                    <button type="button" onClick={() => (state.value = "idle")}>No</button>
                </span>
            ) : (
                <button type="button" disabled={state.value === "busy" || props.disabled} onClick={act}>{props.label}</button>
            )}
            <span role="status" class={failed.value ? "bad" : "dim"}>{said}</span>
        </span>
    );
}
