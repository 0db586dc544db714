// format: numbers for people. Pure functions, used by every view.
// @ts-check

/** @param {number} n */
export function bytes(n) {
    const units = ["B", "KB", "MB", "GB", "TB"];
    let i = 0;
    while (n >= 1000 && i < units.length - 1) {
        n /= 1000;
        i++;
    }
    return `${i === 0 || n >= 100 ? Math.round(n) : n.toFixed(1)} ${units[i]}`;
}

/** @param {number} n parameters */
export function parameters(n) {
    if (n >= 1e9) return `${(n / 1e9).toFixed(1)} B parameters`;
    return `${Math.round(n / 1e6)} M parameters`;
}

/** @param {number} seconds */
export function duration(seconds) {
    if (!Number.isFinite(seconds)) return "";
    if (seconds < 0.1) return `${Math.max(1, Math.round(1000 * seconds))} ms`;
    if (seconds < 10) return `${seconds.toFixed(1)} s`;
    if (seconds < 90) return `${Math.round(seconds)} s`;
    if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
    return `${(seconds / 3600).toFixed(1)} h`;
}

/** As clocks show it. @param {number} seconds */
export function clock(seconds) {
    const whole = Math.round(seconds);
    return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

/** @param {number} perSecond tokens a second */
export function speed(perSecond) {
    return `${perSecond >= 100 ? Math.round(perSecond) : perSecond.toFixed(1)} tok/s`;
}

/** @param {number} done @param {number} total */
export function percent(done, total) {
    return total > 0 ? `${Math.min(100, Math.floor((100 * done) / total))} %` : "";
}

/** What a progress bar says beside itself.
 * @param {{done: number, total: number, rate: number}} p */
export function progress({done, total, rate}) {
    const parts = [total ? `${bytes(done)} of ${bytes(total)}` : bytes(done)];
    if (rate > 0) parts.push(`${bytes(rate)}/s`);
    if (rate > 0 && total > done) parts.push(`${duration((total - done) / rate)} left`);
    return parts.join(" · ");
}

/** The heading under which a conversation is listed. @param {number} time @param {number} now */
export function age(time, now) {
    const midnight = new Date(now).setHours(0, 0, 0, 0);
    const day = 86400e3;
    if (time >= midnight) return "Today";
    if (time >= midnight - day) return "Yesterday";
    if (time >= midnight - 6 * day) return "Last 7 days";
    return new Date(time).toLocaleDateString(undefined, {month: "long", year: "numeric"});
}
