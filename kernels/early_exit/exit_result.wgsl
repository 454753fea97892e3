// Result number $n.
@group(0) @binding($binding) var<storage, read_write> out_$n: array<u32>;

fn put_$n(code: u32, row: u32, column: u32, bits: u32) {
    if (parameters.out_$n_code == code) {
        out_$n[parameters.out_$n_start + row * parameters.out_$n_stride + column] = bits;
    }
}
