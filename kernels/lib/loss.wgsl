// loss: what the two kernels of the cross-entropy share; args is theirs. A workgroup takes
// LOSS_PART values of a row of logits.

const LOSS_PART = 8192u;

fn capped(x: f32) -> f32 {
    if (args.cap == 0.0) { return x; }
    return args.cap * tanh(clamp(x / args.cap, -15.0, 15.0));
}
