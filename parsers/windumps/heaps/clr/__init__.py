"""The heap of CoreCLR: .NET objects, found and walked without the runtime's own library."""
