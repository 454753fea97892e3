// The same interface as tensor_vector.wgsl for rows of any length, start and stride: a chunk is one element.

#import shared/tensor_element.wgsl tensor=$tensor binding=$binding dtype=$dtype access=$access

fn $tensor_chunk(at: u32) -> Chunk {
    return $tensor_at(at);
}
