// The tokens' lists of neurons, one after another: places in `neurons`, from begin to before end, both inside it whatever
// the offsets are.

struct List {
    begin: u32,
    end: u32,
}

fn list_of(token: u32) -> List {
    let at = parameters.offsets_start + token;
    return List(min(neuron_offsets[at], parameters.listed), min(neuron_offsets[at + 1u], parameters.listed));
}

// The first place of the list whose neuron is not below `neuron`; the end where there is none.
fn place_in(list: List, neuron: u32) -> u32 {
    var low = list.begin;
    var high = list.end;
    while (low < high) {
        let middle = low + (high - low) / 2u;
        if (neurons[parameters.neurons_start + middle] < neuron) {
            low = middle + 1u;
        } else {
            high = middle;
        }
    }
    return low;
}
