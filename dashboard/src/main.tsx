// The frame of the page: where one can go, how the connection is, and the keyboard.
import { signal } from "@preact/signals";
import { render, type FunctionComponent } from "preact";
import { useEffect, useRef } from "preact/hooks";
import "uplot/dist/uPlot.min.css";
import "./page.css";
import { connection, overview, start } from "./live";
import { walk } from "./parts/rows";
import { go, href, route } from "./router";
import { chosen, choose } from "./theme";
import type { Overview as Seen, Route } from "./types";
import { Agents } from "./views/agents";
import { Audit } from "./views/audit";
import { Letters } from "./views/letters";
import { Messages } from "./views/messages";
import { Overview } from "./views/overview";
import { Tasks } from "./views/tasks";

interface View {
    name: string;
    title: string;
    key: string;
    needs?: Route[];
    show: FunctionComponent;
}

const VIEWS: View[] = [
    { name: "overview", title: "Overview", key: "1", show: Overview },
    { name: "messages", title: "Messages", key: "2", needs: ["messages"], show: Messages },
    { name: "letters", title: "Dead letters", key: "3", needs: ["messages"], show: Letters },
    { name: "tasks", title: "Tasks", key: "4", needs: ["tasks"], show: Tasks },
    { name: "agents", title: "Agents", key: "5", needs: ["agents", "capabilities"], show: Agents },
    { name: "audit", title: "Audit", key: "6", needs: ["audit"], show: Audit },
];

const isHelpOpen = signal(false);

/** A program shows only what it offers. */
function offered(seen: Seen | null): View[] {
    return VIEWS.filter((view) => !view.needs || (seen && view.needs.some((name) => seen.routes[name])));
}

function Page() {
    const seen = overview.value;
    const views = offered(seen);
    const { view: name, id } = route.value;
    // One message's life is shown also where there is no list of them.
    const view = views.find((it) => it.name === name) ?? (id && seen ? VIEWS.find((it) => it.name === name) : undefined);
    const main = useRef<HTMLElement>(null);
    useEffect(() => {
        document.title = [id || view?.title, seen?.agent_id, "OpenClaw"].filter(Boolean).join(" · ");
    }, [view?.title, id, seen?.agent_id]);
    useEffect(() => scrollTo(0, 0), [name, id]);
    // On a phone the views stand in a row that is wider than the page.
    useEffect(() => document.querySelector("nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" }), [view?.name]);
    const Shown = view?.show;
    const failed = seen?.messages.find((it) => it.direction === "outbound" && it.status === "failed")?.count ?? 0;
    return (
        <>
            <a class="skip" href="#main" onClick={(event) => (event.preventDefault(), main.current?.focus())}>Skip to the content</a>
            <header class="top">
                <div class="brand">
                    <img src="/dashboard/icon.svg" alt="" width="26" height="26" />
                    <div>
                        <h1>{seen?.program === "openclaw-server" ? "OpenClaw server" : seen?.agent_id ?? "OpenClaw"}</h1>
                        {seen && <p>{seen.program === "openclaw-server" ? `version ${seen.version}` : `bridge in ${seen.namespace}, version ${seen.version}`}</p>}
                    </div>
                </div>
                <nav aria-label="Views">
                    {views.map((it) => (
                        <a key={it.name} href={href(it.name)} aria-current={it.name === name ? "page" : undefined} title={`key ${it.key}`}>
                            {it.title}
                            {it.name === "letters" && failed > 0 && <span class="badge">{failed > 999 ? "999+" : failed}</span>}
                        </a>
                    ))}
                </nav>
                <div class="tools">
                    <span class={`live ${connection.value}`} role="status" title="the page's own connection to this program">
                        {connection.value === "live" ? "live" : connection.value === "lost" ? "connecting again…" : "connecting…"}
                    </span>
                    <button type="button" aria-label={`Theme: ${chosen.value}`} title={`theme: ${chosen.value}`} onClick={() => choose(chosen.value === "auto" ? "dark" : chosen.value === "dark" ? "light" : "auto")}>
                        {chosen.value === "auto" ? "Auto" : chosen.value === "dark" ? "Dark" : "Light"}
                    </button>
                    <button type="button" aria-label="Keyboard" title="keyboard (?)" onClick={() => (isHelpOpen.value = true)}>?</button>
                </div>
            </header>
            {seen && seen.damage.length > 0 && <Damage seen={seen} />}
            <main id="main" ref={main} tabIndex={-1} class={connection.value === "lost" ? "stale" : ""}>
                {Shown ? <Shown key={name} /> : seen ? <p class="empty">There is no such view here. <a href={href("overview")}>Overview</a></p> : <p class="empty">{connection.value === "lost" ? "The program does not answer. The page comes back with it." : "Connecting…"}</p>}
            </main>
            {isHelpOpen.value && <Help views={views} />}
        </>
    );
}

/** What is missing from whatever the page shows. */
function Damage({ seen: { damage, routes } }: { seen: Seen }) {
    const [first, ...more] = damage;
    return (
        <div class="damage" role="alert" title={damage.join("\n")}>
            <p><b>A part of the store cannot be read.</b> {first}{more.length > 0 && `, and ${more.length} more`}. What it held is missing here.</p>
            {routes.audit && <a href={href("audit", "", { event: "store.damage" })}>What was recorded of it</a>}
        </div>
    );
}

function Help({ views }: { views: View[] }) {
    const dialog = useRef<HTMLDialogElement>(null);
    useEffect(() => dialog.current?.showModal(), []);
    const keys: [string, string][] = [
        ...views.map((view): [string, string] => [view.key, view.title]),
        ["j k", "next and previous row"], ["Enter", "open the row"], ["Esc", "back to the list"],
        ["/", "to the filter"], ["p", "pause the audit log"], ["t", "dark or light"], ["?", "this help"],
    ];
    return (
        <dialog ref={dialog} onClose={() => (isHelpOpen.value = false)} aria-label="Keyboard">
            <h2>Keyboard</h2>
            <dl>{keys.map(([key, text]) => <div key={key}><dt>{key.split(" ").map((one) => <kbd key={one}>{one}</kbd>)}</dt><dd>{text}</dd></div>)}</dl>
            <form method="dialog"><button class="primary">Close</button></form>
        </dialog>
    );
}

function pressed(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey || isHelpOpen.value) return;
    const target = event.target as HTMLElement;
    if (/^(INPUT|SELECT|TEXTAREA)$/.test(target.tagName)) {
        if (event.key === "Escape") target.blur();
        return;
    }
    const view = offered(overview.value).find((it) => it.key === event.key);
    const click = (selector: string) => document.querySelector<HTMLElement>(selector)?.click();
    if (view) go(href(view.name));
    else if (event.key === "j" || event.key === "ArrowDown") walk(1);
    else if (event.key === "k" || event.key === "ArrowUp") walk(-1);
    else if (event.key === "/") document.querySelector<HTMLElement>("[data-search]")?.focus();
    else if (event.key === "p") click("[data-pause]");
    else if (event.key === "t") click(".tools button");
    else if (event.key === "?") isHelpOpen.value = true;
    else if (event.key === "Escape") click("[data-back]");
    else return;
    const isArrow = event.key.startsWith("Arrow");
    if (!isArrow || document.activeElement?.hasAttribute("data-row")) event.preventDefault();
}

addEventListener("keydown", pressed);
start();
render(<Page />, document.getElementById("page")!);
