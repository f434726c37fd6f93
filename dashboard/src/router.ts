// Where the page is: the part of the address behind the `#`, so that every view has a link.
import { computed, signal } from "@preact/signals";

const hash = signal(location.hash);
addEventListener("hashchange", () => (hash.value = location.hash));

export const route = computed(() => {
    const [path = "", query = ""] = hash.value.replace(/^#\/?/, "").split("?");
    const [view = "", ...rest] = path.split("/").map(decodeURIComponent);
    return { view: view || "overview", id: rest.join("/"), query: new URLSearchParams(query) };
});

export function href(view: string, id = "", query: Record<string, string> = {}): string {
    const asked = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== ""));
    const text = asked.toString();
    return `#/${view}${id && `/${encodeURIComponent(id)}`}${text && `?${text}`}`;
}

export function go(address: string): void {
    location.hash = address;
}

/** Changes filters of this view, and leaves the others, without a new step in the browser's history. */
export function refine(changed: Record<string, string>): void {
    const { view, id, query } = route.peek();
    history.replaceState(null, "", href(view, id, { ...Object.fromEntries(query), ...changed }));
    hash.value = location.hash;
}
