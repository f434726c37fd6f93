// Dark or light: as the system says, unless a person chose.
import { effect, signal } from "@preact/signals";

type Choice = "auto" | "light" | "dark";

const KEY = "openclaw-theme";
const system = matchMedia("(prefers-color-scheme: dark)");

function kept(): Choice {
    try {
        const value = localStorage.getItem(KEY);
        return value === "light" || value === "dark" ? value : "auto";
    } catch {
        return "auto";
    }
}

export const chosen = signal<Choice>(kept());
const isDark = signal(system.matches);
system.addEventListener("change", () => (isDark.value = system.matches));

/** What is shown now. */
export const theme = signal<"light" | "dark">("light");

effect(() => {
    const shown = chosen.value === "auto" ? (isDark.value ? "dark" : "light") : chosen.value;
    document.documentElement.dataset.theme = shown;
    theme.value = shown;
});

export function choose(choice: Choice): void {
    chosen.value = choice;
    try {
        localStorage.setItem(KEY, choice);
    } catch {
        // Then it holds for this window only.
    }
}
