"""What looks into strangers' files. It runs in the cage's child process alone (`backend.media.cage`).

`loop` takes one order after the other, `confinement` gives away what the process could do harm with. `parts` and
`endings` read a container's outermost structure, `images` and `videos` decode within `bounds`, `stills` writes
pictures, `inspection` is the way in. `trim` and `stitch` make films: `clips` reads one, `shapes` brings its pictures to
a size, `films` writes what comes of them. All is imported before the process locks itself up: later there are no files.
"""
