/* What TypeScript's library for workers leaves out. */
declare const GPUBufferUsage: Record<string, number>;
declare const GPUShaderStage: Record<string, number>;
declare const GPUMapMode: Record<string, number>;

/* What only a page has, and carat.d.ts names. */
declare class AudioBuffer {
    readonly duration: number;
}
declare class HTMLVideoElement {
    currentTime: number;
}
