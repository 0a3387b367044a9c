"""Pictures of invented worlds: meshes, materials, light and a camera's faults."""
