def edit(p, *pairs):
    s = open(p).read()
    for a, b in pairs:
        assert a in s, (p, a[:90])
        s = s.replace(a, b, 1)
    open(p, "w").write(s)
