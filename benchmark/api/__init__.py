"""The functions and classes behind `import adbench`. May import every package but `cli`."""
