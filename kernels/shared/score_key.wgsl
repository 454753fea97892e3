// Keys that order scores as unsigned numbers: larger scores have larger keys, both zeros have one, and every NaN has
// the smallest, 0. Keys of 16-bit types have 16 bits.

fn key_of_bits(bits: u32, dtype: u32) -> u32 {
    let sign = select(0x8000u, 0x80000000u, dtype == F32);
    let infinity = select(select(0x7c00u, 0x7f80u, dtype == BF16), 0x7f800000u, dtype == F32);
    let magnitude = bits & (sign - 1u);
    if (magnitude > infinity) {
        return 0u;
    }
    if (magnitude == 0u) {
        return sign;
    }
    if ((bits & sign) != 0u) {
        return ~bits & (sign | (sign - 1u));
    }
    return bits | sign;
}
