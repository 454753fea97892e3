// Cooperative matrices of 8 by 8 on subgroups of 8: operands in f16, sums in f32.

const SIZE: u32 = 8u;
const SUBGROUP: u32 = 8u;

alias Left = coop_mat8x8<f16, A>;
alias Right = coop_mat8x8<f16, B>;
alias Sum = coop_mat8x8<f32, C>;
