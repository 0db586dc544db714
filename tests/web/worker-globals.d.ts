/* What TypeScript's library for workers leaves out. */
declare const GPUBufferUsage: Record<string, number>;
declare const GPUShaderStage: Record<string, number>;
declare const GPUMapMode: Record<string, number>;
