"""PEFT adapters: inject, train, save, load, blend per image."""
