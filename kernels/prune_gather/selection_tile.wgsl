// A tile of THREADS * ITEMS elements, ITEMS consecutive ones an invocation; and the selected ones among them. The state
// of a tensor is the threshold's key, how many of its equals are taken, and the index behind the last of them.

#import shared/scan.wgsl
#import shared/score_key.wgsl

// An invocation's elements in a tile of the part: the first one, and the one behind the last.
fn own_elements(tile: u32, thread: u32) -> vec2<u32> {
    let begin = min((tile * THREADS + thread) * ITEMS, parameters.elements);
    return vec2(begin, min(begin + ITEMS, parameters.elements));
}

fn is_selected(state: u32, key: u32, index: u32) -> bool {
    let threshold = scratch[state];
    return key > threshold || (key == threshold && index < scratch[state + 2u]);
}
