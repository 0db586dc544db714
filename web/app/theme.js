// theme: sets the chosen colours before the first paint. A classic script in <head>, because a
// module would run after it; view/settings.js changes the choice later.
try {
    const {theme} = JSON.parse(localStorage.getItem("carat.settings")) ?? {};
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
    // No storage: the system's colours.
}
