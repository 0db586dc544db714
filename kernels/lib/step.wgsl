// What changes with every step; mirrors step_uniform of src/model/text_gpu.h. A kernel that needs
// it declares
//   @group(0) @binding(1) var<uniform> step: Step;

struct Step {
    pos: u32,             // of the first token of this run
    n_tok: u32,           // tokens of this run
}
