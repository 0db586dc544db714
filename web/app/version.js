// version: which build this is and which nano belongs to it. tools/precache.mjs writes the real
// one into build/web/; this one stands for a copy that was assembled without it.
export const version = "development";
export const nano = "development";
