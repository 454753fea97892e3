#import feature_attention/gru_slice.wgsl fours=4u
