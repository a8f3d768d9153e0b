/* page.c - see page.h. */
#include "page.h"

#include "libquant/base/err.h"
#include "libquant/base/printed.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* What a link may hold as it is; all else in hexadecimal. */
static void put_escaped(FILE *out, const char *s)
{
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        bool plain =
            (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || strchr("-_.,:", c);
        fprintf(out, plain ? "%c" : "%%%02X", c);
    }
}

int page_link(FILE *out, const char *name, const char *type, void (*print)(const void *ctx, FILE *out),
              const void *ctx)
{
    struct printed p;
    if (printed_begin(&p) != 0)
        return ERR_NOMEM;
    print(ctx, p.out);
    char *text = printed_end(&p);
    const bool ok = text != NULL;
    if (ok) {
        fprintf(out, "<a download=\"%s\" href=\"data:%s;charset=utf-8,", name, type);
        put_escaped(out, text);
        fprintf(out, "\">%s</a> ", name);
    }
    free(text);
    return ok ? 0 : ERR_NOMEM;
}

void page_sort_script(FILE *out)
{
    fputs("<script>\n"
          "document.querySelectorAll('table').forEach(t=>t.querySelectorAll('thead th').forEach((h,i)=>{\n"
          "const b=document.createElement('button');b.append(...h.childNodes);h.append(b);let up=false;\n"
          "b.onclick=()=>{up=!up;const k=r=>{const s=r.cells[i].textContent.replace('\u2212','-');\n"
          "const n=parseFloat(s);return "
          "i==0||n!==n?s:n*({KiB:1,MiB:1024,GiB:1048576}[(s.match(/[KMG]iB/)||[])[0]]||1)};\n"
          "const body=t.tBodies[0];[...body.rows].sort((x,y)=>{const a=k(x),c=k(y);\n"
          "return (a<c?-1:a>c?1:0)*(up?1:-1)}).forEach(r=>body.append(r))}}))\n"
          "</script>\n",
          out);
}
