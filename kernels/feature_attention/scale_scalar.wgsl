// The output of feature_attention, word by word.

#import shared/output.wgsl tensor=out binding=7 dtype=OUT
#import shared/output_row.wgsl tensor=out dtype=OUT

var<private> own_text: u32;
var<private> own_length: u32;

fn out_bits(token: u32, column: u32) -> u32 {
    if (token >= own_length) {
        return 0u;
    }
    let x_row = parameters.x_start + own_text * parameters.x_text_stride + token * parameters.x_row_stride;
    return bits_of(x_at(x_row + column) * state_at(own_text, column), OUT);
}

fn scale_text(text: u32, length: u32, thread: u32) {
    own_text = text;
    own_length = length;
    let out_text = parameters.out_start + text * parameters.out_text_stride;
    for (var item = thread; item < parameters.tokens * parameters.units; item += THREADS) {
        let token = item / parameters.units;
        let start = out_text + token * parameters.out_row_stride;
        out_write_unit(token, start, parameters.features, item % parameters.units);
    }
}
