// Cooperative matrices of 16 by 16 on subgroups of 32: operands in f16, sums in f32.

const SIZE: u32 = 16u;
const SUBGROUP: u32 = 32u;

alias Left = coop_mat16x16<f16, A>;
alias Right = coop_mat16x16<f16, B>;
alias Sum = coop_mat16x16<f32, C>;
