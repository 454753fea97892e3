// A launch has one index. It is laid out over two dimensions when it exceeds what one can take; workgroups
// behind the end return at once.

fn launch_index(workgroup: vec3<u32>, workgroups: vec3<u32>) -> u32 {
    return workgroup.x + workgroup.y * workgroups.x;
}
